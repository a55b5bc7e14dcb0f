"""What the system allows this process beside cores and memory: addresses (ulimit -v) and open files (ulimit -n)."""

from __future__ import annotations

import ctypes
import mmap
import resource
from contextlib import suppress

#: M_ARENA_MAX of glibc's malloc.h.
_HEAPS = -8


def addresses_left() -> int | None:
    """Bytes that this process may still be given before RLIMIT_AS, or None where there is no such limit."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    with open("/proc/self/statm") as file:
        return most - int(file.read().split()[0]) * mmap.PAGESIZE


def save_addresses() -> None:
    """Has all threads share one heap where addresses are limited: glibc takes 64 MiB of them for each thread's own.

    To be called before there are threads.
    """
    if addresses_left() is not None:
        with suppress(AttributeError, OSError, TypeError):  # not glibc
            ctypes.CDLL(None).mallopt(_HEAPS, 1)


def check_room(size: int) -> None:
    """Raises MemoryError unless the system would give so many bytes more. They are not touched, which is quick."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise MemoryError from None
