"""What this process may use of the machine: cores by affinity and cgroup quota, memory by cgroup limit.

The host's own counts mislead in containers: eight threads under a quota of two cores throttle one another.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use: its affinity, or the cgroup's CPU quota rounded up if that is less; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def memory_limit(cgroup: Path = _CGROUP) -> int | None:
    """Bytes the cgroup allows (v2 memory.max, v1 memory.limit_in_bytes), or None if it sets no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(cgroup / name)
        if text and text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def physical_memory() -> int:
    """Bytes of the machine's memory, or 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _cpu_quota(cgroup: Path) -> float | None:
    text = _read(cgroup / "cpu.max")
    if text is None:
        quota, period = _read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")
    else:
        quota, _, period = text.partition(" ")
    if not quota or not period or not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
