"""What a process and its children cost, read from /proc (Linux only)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time so far, user and system, of children that ended too."""
    return sum(_cpu(one) for one in tree(pid))


def threads_cpu_seconds(pid: int) -> dict[int, float]:
    """CPU time so far of each thread of the process itself, by the kernel's number of it."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            user, system = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
            found[int(task.name)] = (int(user) + int(system)) / _TICKS
    return found


def rss(pid: int) -> int:
    """Bytes of the resident sizes, added up."""
    return sum(_status(one, "VmRSS") for one in tree(pid))


def peak_rss(pid: int) -> int:
    """Bytes of the highest resident sizes since `forget_peak`, added up."""
    return sum(_status(one, "VmHWM") for one in tree(pid))


def memory(pid: int) -> tuple[float, float]:
    """MiB of a process and its descendants: proportional (PSS), in which what several map counts once, and private."""
    texts = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in tree(pid)]

    def total(*keys: str) -> float:
        found = (re.findall(rf"^(?:{'|'.join(keys)}):\s+(\d+) kB", text, re.MULTILINE) for text in texts)
        return sum(int(kib) for text in found for kib in text) / 1024

    return total("Pss"), total("Private_Clean", "Private_Dirty")


def forget_peak(pid: int) -> None:
    for one in tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")


def tree(pid: int) -> Iterator[int]:
    """The process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from tree(int(child))


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS  # utime, stime, and those of children waited for


def _status(pid: int, key: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key + ":")), 0)
