"""What this process may use of the machine: cores by affinity and cgroup quota, memory by cgroup limit.

The host's own counts mislead in containers and services: eight threads under a quota of two cores throttle one another.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from clipsrv.cgroups import own_groups

PROC = Path("/proc/self")
#: M_MMAP_THRESHOLD of glibc's malloc.h, and the bytes it is set to: more than a strip of pixels, less than activations.
_MMAP_THRESHOLD, _LARGE = -3, 3 * 2**17
#: Steps of niceness: of a core that two threads want, who gives way has a tenth (sched(7)).
_STEPS = 10


def usable_cores(proc: Path = PROC) -> int:
    """Cores this process may use: its affinity, or the tightest CPU quota of its cgroups rounded up if that is less; at
    least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for group in own_groups("cpu", proc) if (quota := _cpu_quota(group)) is not None]
    return max(1, min([affinity, *quotas]))


def memory_limit(proc: Path = PROC) -> int | None:
    """Bytes that the tightest of this process's cgroups allows (v2 memory.max, v1 memory.limit_in_bytes), or None."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [contents(group / name) for group in own_groups("memory", proc) for name in names]
    limits = [int(text) for text in texts if text and text.isdigit()]
    return min((limit for limit in limits if limit < 1 << 60), default=None)


def physical_memory() -> int:
    """Bytes of the machine's memory, or 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def free_memory(proc: Path = PROC) -> int | None:
    """Bytes this process may still take: what the machine has left, or the tightest of its cgroups if that is less;
    file caches, which make room, count as free. None where the system does not tell."""
    room = [room for group in own_groups("memory", proc) if (room := _room_in(group)) is not None]
    if left := re.search(r"^MemAvailable:\s+(\d+) kB", contents(proc.parent / "meminfo") or "", re.MULTILINE):
        room.append(1024 * int(left[1]))
    return min(room, default=None)


def give_way() -> None:
    """Has the calling thread, and those it starts from now on, leave a core to others that want it. Only on Linux.

    For threads that decode and parse: with all cores at work, the event loop waited half of its time for one of them.
    """
    if sys.platform == "linux":  # elsewhere all threads of a process have one priority
        with suppress(OSError):  # a sandbox that allows no such call: all are alike, as before
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _STEPS)


def keep_large_blocks_apart() -> None:
    """Has glibc take each block of 384 KiB or more from the system, and give it back as soon as it is free.

    Its own threshold rises up to 32 MiB with what is freed. Then activations of a new shape lie among other blocks of
    the heap: a batch that needs 12 MiB at once was seen to take 120, and to keep them. Blocks that are aligned, as
    onnxruntime's are, hardly ever fit where one like them was.
    """
    with suppress(AttributeError, OSError, TypeError):  # as below
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def give_memory_back() -> None:
    """Has the C library return to the system what this process has freed, where it is one that can (glibc).

    It keeps blocks of up to 32 MiB for the next allocation otherwise: a model's weights, several times over.
    """
    with suppress(AttributeError, OSError, TypeError):  # not glibc, or no C library that can be asked
        ctypes.CDLL(None).malloc_trim(0)


def _cpu_quota(group: Path) -> float | None:
    text = contents(group / "cpu.max")
    if text is None:
        quota, period = contents(group / "cpu.cfs_quota_us"), contents(group / "cpu.cfs_period_us")
    else:
        quota, _, period = text.partition(" ")
    if not quota or not period or not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _room_in(group: Path) -> int | None:
    """Bytes left of a group's limit, or None if it has none."""
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        most, used = contents(group / limit), contents(group / usage)
        if most and used and most.isdigit() and used.isdigit() and int(most) < 1 << 60:
            statistics = contents(group / "memory.stat") or ""
            kind = "" if limit == "memory.max" else "total_"
            caches = re.findall(rf"^{kind}(?:in)?active_file (\d+)$", statistics, re.MULTILINE)
            return max(0, int(most) - int(used) + sum(map(int, caches)))
    return None


def contents(path: Path) -> str | None:
    """Text of a file that the system shows, without blanks around it; None if it shows none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
