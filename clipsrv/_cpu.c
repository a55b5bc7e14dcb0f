/* The CPU asked by itself, for where /proc/cpuinfo cannot be read. processor.py knows what the bits mean.
 *
 * Two instructions and nothing else: cpuid, and xgetbv, which says what of the registers the system keeps. Elsewhere
 * than on x86, and by other compilers than GCC and Clang, both answer None.
 */

#define Py_LIMITED_API 0x030B0000 /* Python 3.11 and newer, one binary for all */
#include <Python.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define HAVE_CPUID 1
#include <cpuid.h>

enum { OSXSAVE = 1 << 27 }; /* of leaf 1, ecx: xgetbv may be used */
#endif

static PyObject *cpuid(PyObject *self, PyObject *args) {
    unsigned int leaf, subleaf;
    if (!PyArg_ParseTuple(args, "II", &leaf, &subleaf)) return NULL;
#ifdef HAVE_CPUID
    unsigned int eax, ebx, ecx, edx;
    if (__get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx)) return Py_BuildValue("IIII", eax, ebx, ecx, edx);
#endif
    Py_RETURN_NONE; /* no such leaf */
}

static PyObject *xgetbv(PyObject *self, PyObject *args) {
#ifdef HAVE_CPUID
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid_count(1, 0, &eax, &ebx, &ecx, &edx) || !(ecx & OSXSAVE)) return PyLong_FromLong(0);
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return PyLong_FromUnsignedLongLong((unsigned long long)edx << 32 | eax);
#else
    Py_RETURN_NONE;
#endif
}

static PyMethodDef methods[] = {
    {"cpuid", cpuid, METH_VARARGS, "The registers eax, ebx, ecx, edx of a leaf and subleaf, or None."},
    {"xgetbv", xgetbv, METH_NOARGS, "The bits of XCR0, or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__cpu(void) { return PyModuleDef_Init(&module); }
