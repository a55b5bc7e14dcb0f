/* The two passes of Pillow's 8-bit resize (libImaging/Resample.c) for the outputs of a window only: level for level what
 * Pillow computes, several times faster. resize.py decides which outputs, by which weights and in which order.
 *
 * Images are rows of pixels of four levels (RGBX), weights are rounded to 22 bits, and sums back to 8 bits. The order
 * in which integers are summed changes nothing, so the sums may run side by side.
 */

#define Py_LIMITED_API 0x030B0000 /* Python 3.11 and newer, one binary for all */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#define HAVE_AVX2 1
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

enum {
    BITS = 22,
    HALF = 1 << (BITS - 1),
    LEVELS = 4, /* of a pixel */
    LANES = 16, /* levels summed side by side; taps come in fours to fill them */
    BLOCK = 32, /* levels of a row that a pass down the columns takes at a time */
    ROWS = 4, /* whose sums for one output fit into the registers */
    LOW_BITS = 11, /* of a weight that are multiplied apart from the rest */
};

/* What one pass works on. Lengths in pixels; `weights` are count x taps, each four times over for a pass along rows. */
typedef struct {
    const uint8_t *image;
    Py_ssize_t rows, width;
    const int32_t *first, *weights;
    Py_ssize_t count, taps;
    uint8_t *out;
} Pass;

typedef void (*Kernel)(const Pass *pass);

static inline uint8_t clip(int32_t sum) {
    int32_t level = sum >> BITS;
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

static void along_rows(const Pass *pass) {
    const uint8_t *row = pass->image;
    uint8_t *out = pass->out;
    for (Py_ssize_t y = 0; y < pass->rows; y++, row += LEVELS * pass->width) {
        const int32_t *weights = pass->weights;
        for (Py_ssize_t x = 0; x < pass->count; x++, weights += LEVELS * pass->taps, out += LEVELS) {
            const uint8_t *source = row + LEVELS * (Py_ssize_t)pass->first[x];
            int32_t sums[LANES] = {0};
            for (Py_ssize_t i = 0; i < LEVELS * pass->taps; i += LANES)
                for (int lane = 0; lane < LANES; lane++) sums[lane] += source[i + lane] * weights[i + lane];
            for (int c = 0; c < LEVELS; c++) out[c] = clip(HALF + sums[c] + sums[c + 4] + sums[c + 8] + sums[c + 12]);
        }
    }
}

static inline void down_block(const uint8_t *source, Py_ssize_t stride, const int32_t *weights, Py_ssize_t taps,
                              int levels, uint8_t *out) {
    int32_t sums[BLOCK];
    for (int i = 0; i < levels; i++) sums[i] = HALF;
    for (Py_ssize_t tap = 0; tap < taps; tap++, source += stride)
        for (int i = 0; i < levels; i++) sums[i] += source[i] * weights[tap];
    for (int i = 0; i < levels; i++) out[i] = clip(sums[i]);
}

static void down_columns(const Pass *pass) {
    Py_ssize_t stride = LEVELS * pass->width;
    const int32_t *weights = pass->weights;
    uint8_t *out = pass->out;
    for (Py_ssize_t y = 0; y < pass->count; y++, weights += pass->taps, out += stride) {
        const uint8_t *source = pass->image + stride * pass->first[y];
        Py_ssize_t i = 0;
        for (; i + BLOCK <= stride; i += BLOCK) down_block(source + i, stride, weights, pass->taps, BLOCK, out + i);
        down_block(source + i, stride, weights, pass->taps, (int)(stride - i), out + i);
    }
}

#ifdef HAVE_AVX2
AVX2 static inline __m256i weighted(__m256i sums, const uint8_t *source, __m256i weights) {
    __m256i levels = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)source));
    return _mm256_add_epi32(sums, _mm256_mullo_epi32(levels, weights));
}

/* Of one output: the weights of taps 0 and 1 side by side for each level, then those of 2 and 3, and so on; below first
 * what is left of each when its lowest bits are cut off, then these bits. Both fit into 16 bits, of which the processor
 * multiplies and adds twice as many at a time as of 32, and sooner. */
AVX2 static void halve(const int32_t *weights, Py_ssize_t taps, __m256i *halves) {
    const __m256i low_bits = _mm256_set1_epi32((1 << LOW_BITS) - 1);
    for (Py_ssize_t i = 0; i < taps; i += 4, weights += LANES) {
        __m256i two = _mm256_loadu_si256((const __m256i *)weights);
        __m256i next = _mm256_loadu_si256((const __m256i *)(weights + 8));
        __m256i left = _mm256_permute2x128_si256(two, next, 0x20), right = _mm256_permute2x128_si256(two, next, 0x31);
        __m256i high = _mm256_blend_epi16(_mm256_srai_epi32(left, LOW_BITS),
                                          _mm256_slli_epi32(_mm256_srai_epi32(right, LOW_BITS), 16), 0xAA);
        __m256i low = _mm256_or_si256(_mm256_and_si256(left, low_bits),
                                      _mm256_slli_epi32(_mm256_and_si256(right, low_bits), 16));
        *halves++ = high;
        *halves++ = low;
    }
}

/* `count` rows of one output, whose sources begin at `source` in the first of them. */
AVX2 static inline __attribute__((always_inline)) void down_rows(const uint8_t *source, Py_ssize_t stride, int count,
                                                                 const __m256i *halves, Py_ssize_t taps, uint8_t *out,
                                                                 Py_ssize_t out_stride) {
    /* Four pixels twice; of either half two of them, level by level side by side, as 16 bits. */
    const __m256i pairs = _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1, /* taps 0 and 1 */
                                           8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1);
    __m256i high[ROWS], low[ROWS];
    for (int row = 0; row < count; row++) high[row] = low[row] = _mm256_setzero_si256();
    for (Py_ssize_t i = 0; i < taps; i += 4, source += LANES, halves += 2) {
        for (int row = 0; row < count; row++) {
            __m256i four = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(source + stride * row)));
            __m256i levels = _mm256_shuffle_epi8(four, pairs);
            high[row] = _mm256_add_epi32(high[row], _mm256_madd_epi16(levels, halves[0]));
            low[row] = _mm256_add_epi32(low[row], _mm256_madd_epi16(levels, halves[1]));
        }
    }
    for (int row = 0; row < count; row++, out += out_stride) {
        __m256i both = _mm256_add_epi32(_mm256_slli_epi32(high[row], LOW_BITS), low[row]);
        __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        sums = _mm_srai_epi32(_mm_add_epi32(sums, _mm_set1_epi32(HALF)), BITS);
        sums = _mm_packs_epi32(sums, sums);
        int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(sums, sums)); /* packing is what clips here */
        __builtin_memcpy(out, &pixel, LEVELS);
    }
}

/* Output by output, so that its weights are read once for all rows: those of all outputs are more than a core's nearest
 * cache holds. */
AVX2 static void along_rows_avx2(const Pass *pass) {
    Py_ssize_t stride = LEVELS * pass->width, out_stride = LEVELS * pass->count;
    __m256i *halves = aligned_alloc(sizeof *halves, (size_t)(pass->taps / 2 + 1) * sizeof *halves);
    if (!halves) {
        along_rows(pass);
        return;
    }
    for (Py_ssize_t x = 0; x < pass->count; x++) {
        const uint8_t *source = pass->image + LEVELS * (Py_ssize_t)pass->first[x];
        uint8_t *out = pass->out + LEVELS * x;
        halve(pass->weights + LEVELS * pass->taps * x, pass->taps, halves);
        Py_ssize_t y = 0;
        for (; y + ROWS <= pass->rows; y += ROWS)
            down_rows(source + stride * y, stride, ROWS, halves, pass->taps, out + out_stride * y, out_stride);
        for (; y < pass->rows; y++)
            down_rows(source + stride * y, stride, 1, halves, pass->taps, out + out_stride * y, out_stride);
    }
    free(halves);
}

AVX2 static void down_columns_avx2(const Pass *pass) {
    Py_ssize_t stride = LEVELS * pass->width;
    const int32_t *weights = pass->weights;
    uint8_t *out = pass->out;
    for (Py_ssize_t y = 0; y < pass->count; y++, weights += pass->taps, out += stride) {
        const uint8_t *source = pass->image + stride * pass->first[y];
        Py_ssize_t i = 0;
        for (; i + BLOCK <= stride; i += BLOCK) {
            __m256i sums[BLOCK / 8];
            for (int part = 0; part < BLOCK / 8; part++) sums[part] = _mm256_set1_epi32(HALF);
            for (Py_ssize_t tap = 0; tap < pass->taps; tap++)
                for (int part = 0; part < BLOCK / 8; part++)
                    sums[part] = weighted(sums[part], source + i + stride * tap + 8 * part,
                                          _mm256_set1_epi32(weights[tap]));
            for (int part = 0; part < BLOCK / 8; part++) sums[part] = _mm256_srai_epi32(sums[part], BITS);
            __m256i low = _mm256_packs_epi32(sums[0], sums[1]), high = _mm256_packs_epi32(sums[2], sums[3]);
            /* Packing works within halves: put the eight groups of four levels back in order. */
            __m256i mixed = _mm256_packus_epi16(low, high);
            mixed = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256((__m256i *)(out + i), mixed);
        }
        down_block(source + i, stride, weights, pass->taps, (int)(stride - i), out + i);
    }
}
#endif

/* Checks what Python hands over, so that no kernel reads or writes outside of it, and runs one without the GIL. */
static PyObject *run(PyObject *args, Kernel kernel, int along) {
    Py_buffer image, first, weights, out;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*ny*y*w*", &image, &width, &first, &weights, &out)) return NULL;
    Pass pass = {.image = image.buf, .width = width, .first = first.buf, .weights = weights.buf, .out = out.buf};
    const char *fault = NULL;
    pass.count = first.len / (Py_ssize_t)sizeof(int32_t);
    if (width < 1 || width > image.len / LEVELS || image.len % (LEVELS * width) || pass.count < 1) {
        fault = "no whole image, or no outputs";
    } else {
        pass.rows = image.len / (LEVELS * width);
        pass.taps = weights.len / (Py_ssize_t)sizeof(int32_t) / pass.count / (along ? LEVELS : 1);
        Py_ssize_t size = along ? width : pass.rows, other = along ? pass.rows : width;
        Py_ssize_t wanted = pass.count * pass.taps * (along ? LEVELS : 1) * (Py_ssize_t)sizeof(int32_t);
        if (weights.len != wanted || (along && pass.taps % 4)) fault = "weights that do not fit the outputs";
        if (out.len != LEVELS * pass.count * other) fault = "room of another size than the outputs";
        for (Py_ssize_t i = 0; i < pass.count; i++)
            if (pass.first[i] < 0 || pass.first[i] > size - pass.taps) fault = "sources outside of the image";
    }
    if (fault) {
        PyErr_SetString(PyExc_ValueError, fault);
    } else {
        Py_BEGIN_ALLOW_THREADS
        kernel(&pass);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&image);
    PyBuffer_Release(&first);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&out);
    if (fault) return NULL;
    Py_RETURN_NONE;
}

#define METHOD(kernel, along) \
    static PyObject *py_##kernel(PyObject *module, PyObject *args) { \
        (void)module; \
        return run(args, kernel, along); \
    }
#define ENTRY(kernel) {#kernel, py_##kernel, METH_VARARGS, "(image, width, first, weights, out)"}

METHOD(along_rows, 1)
METHOD(down_columns, 0)
#ifdef HAVE_AVX2
METHOD(along_rows_avx2, 1)
METHOD(down_columns_avx2, 0)
#endif

static PyMethodDef methods[] = {
    ENTRY(along_rows),
    ENTRY(down_columns),
#ifdef HAVE_AVX2
    ENTRY(along_rows_avx2),
    ENTRY(down_columns_avx2),
#endif
    {NULL, NULL, 0, NULL},
};

static int set_up(PyObject *module) {
    int avx2 = 0;
#ifdef HAVE_AVX2
    avx2 = __builtin_cpu_supports("avx2") != 0;
#endif
    return PyModule_AddObjectRef(module, "HAS_AVX2", avx2 ? Py_True : Py_False);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)set_up}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_resize",
    .m_doc = "Passes of Pillow's 8-bit resize for a window; see resize.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__resize(void) { return PyModuleDef_Init(&definition); }
