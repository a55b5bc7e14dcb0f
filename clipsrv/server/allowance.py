"""What the system allows this process beside cores and memory: addresses (ulimit -v) and open files (ulimit -n)."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import mmap
import resource
from contextlib import suppress
from typing import Any, NamedTuple

logger = logging.getLogger("clipsrv")

#: What a system says that has no file left for a connection, or no memory in its kernel.
_NO_FILE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
#: M_ARENA_MAX of glibc's malloc.h.
_HEAPS = -8


#: Files that a server has open beside its connections, and connections that are accepted in one go where files allow.
_OTHER_FILES, _BACKLOG = 64, 1024


class Room(NamedTuple):
    """How many connections there may be, and how many more may come in one go before one of them is looked at."""

    connections: int
    backlog: int


def open_files(wanted: int) -> int:
    """Files that this process may have open, once its own limit was raised to `wanted` or as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted if soft == resource.RLIM_INFINITY else soft
    with suppress(ValueError, OSError):  # macOS has one more limit that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def files_for(connections: int, spare: int) -> int:
    """Files that so many connections need, with `spare` more that are being turned away."""
    return connections + spare + _BACKLOG + _OTHER_FILES


def room_for(connections: int, spare: int, files: int) -> Room:
    """What `files` allow of what was wanted: fewer at once and fewer in one go, never one."""
    free = files - _OTHER_FILES - spare
    backlog = _BACKLOG if free >= connections + _BACKLOG else max(1, min(_BACKLOG, free // 4))
    return Room(max(1, min(connections, free - backlog)), backlog)


class FewFiles:
    """Says once in a while that no file is free for a connection: asyncio would say it a thousand times a second."""

    def __init__(self, every: float = 10.0) -> None:
        self._every, self._next = every, 0.0

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler; whatever else happens is left to the usual one."""
        if not (isinstance(error := context.get("exception"), OSError) and error.errno in _NO_FILE):
            loop.default_exception_handler(context)
        elif loop.time() >= self._next:
            self._next = loop.time() + self._every
            logger.warning("a connection cannot be accepted: %s; raise ulimit -n", error.strerror)


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
