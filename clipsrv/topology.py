"""The CPUs this process may use as Linux shows them: cores of several CPUs, fast and slow ones, NUMA nodes; and how
many threads one inference has of them, in the only process or in one of several.

Where the system tells nothing of it (macOS, some sandboxes) each CPU is a core, all are alike, and in one node.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from clipsrv.machine import PROC, contents, usable_cores

_DEVICES = Path("/sys/devices")
#: CPUs of one core at most: POWER has so many. A list of more is not believed.
_MOST_OF_A_CORE = 8

Cpus = frozenset[int]


@dataclass(frozen=True)
class Threads:
    """How many for one inference, and why in few words. `cpus` are those that a worker keeps to; None is all."""

    count: int
    why: str
    cpus: Cpus | None = None


class _Core(NamedTuple):
    """CPUs that share one core's arithmetic."""

    cpus: Cpus
    node: int


def inference_threads(workers: int = 1, number: int = 1, *, proc: Path = PROC, devices: Path = _DEVICES) -> Threads:
    """Threads for one inference of the worker `number`, from 1, of so many that share the machine: one for each core,
    of two kinds of cores for the fast ones, divided among the workers; no more than the CPU quota, and at least 1.

    Two threads on one core share its arithmetic, for which products of matrices wait: onnxruntime's default is one a
    core too. Only where a single core is all there is both its CPUs are taken. Of several NUMA nodes a worker keeps to
    one, or to some of them if workers are fewer: the memory of another is further away.
    """
    cores, usable = _cores(devices), usable_cores(proc)
    if not cores:  # a system without affinity
        return Threads(max(1, usable // workers), "one a core")
    own, sharing = _share(cores, workers, number)
    cpus, fast = frozenset[int]().union(*(core.cpus for core in own)), _fast(own, devices)
    if len(cores) == 1 < len(cpus):
        count, why = len(cpus) // sharing, "one a CPU of the only core"
    else:
        count, why = fast // sharing, "one a core" + (" of several CPUs" if len(own) < len(cpus) else "")
    if fast < len(own):
        why = f"the fast of {len(own)} cores"
    if usable < sum(len(core.cpus) for core in cores) and usable // workers < count:
        count, why, sharing = usable // workers, "the CPU quota", workers
    if sharing > 1:
        why += f" for {sharing} workers"
    nodes = {core.node for core in cores}
    if len(nodes) == 1:
        return Threads(max(1, count), why)
    kept = ", ".join(str(node) for node in sorted({core.node for core in own}))
    where = f"NUMA node {kept} of {len(nodes)}" if workers > 1 else f"{len(nodes)} NUMA nodes"
    return Threads(max(1, count), f"{why}, {where}", cpus if workers > 1 else None)


def keep_to(cpus: Cpus) -> bool:
    """Has the calling thread, and those it starts from now on, run on these CPUs only; whether the system allows it."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True


def _cores(devices: Path) -> list[_Core]:
    """Those of which this process may use a CPU, in the order of their CPUs; none where there is no affinity."""
    allowed = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()
    nodes = {
        cpu: int(folder.name.removeprefix("node"))
        for folder in devices.glob("system/node/node[0-9]*")
        if folder.name.removeprefix("node").isdecimal()
        for cpu in _listed(folder / "cpulist", allowed)
    }
    cores: dict[int, set[int]] = {}
    for cpu in sorted(allowed):
        place = devices / f"system/cpu/cpu{cpu}/topology"
        together = _listed(place / "core_cpus_list", allowed) or _listed(place / "thread_siblings_list", allowed)
        believed = cpu in together and len(together) <= _MOST_OF_A_CORE
        cores.setdefault(min(together) if believed else cpu, set()).add(cpu)
    return [_Core(frozenset(cpus), nodes.get(first, 0)) for first, cpus in cores.items()]


def _share(cores: list[_Core], workers: int, number: int) -> tuple[list[_Core], int]:
    """The cores of the node, or nodes, that a worker keeps to, and how many workers keep to the same."""
    nodes = Counter(core.node for core in cores)
    if len(nodes) == 1:
        return cores, workers
    if workers < len(nodes):
        kept = {node for place, node in enumerate(sorted(nodes)) if place % workers == number - 1}
        return [core for core in cores if core.node in kept], 1
    seats = sorted(nodes)
    while len(seats) < workers:  # the others where most cores are for each
        seats.append(max(sorted(nodes), key=lambda node: nodes[node] / (seats.count(node) + 1)))
    mine = seats[number - 1]
    return [core for core in cores if core.node == mine], seats.count(mine)


def _fast(cores: list[_Core], devices: Path) -> int:
    """How many of them one inference takes, the fastest first.

    An operator's work is dealt out evenly, so that the slowest core ends it: the number times the capacity of the
    slowest is to be largest. Capacities are Linux's (cpu_capacity, 1024 the fastest); a hybrid CPU of Intel's may have
    the list of its fast CPUs instead (cpu_core/cpus).
    """
    told = [contents(devices / f"system/cpu/cpu{min(core.cpus)}/cpu_capacity") or "" for core in cores]
    if all(re.fullmatch(r"\d{1,6}", text) for text in told):
        capacities = sorted(map(int, told), reverse=True)
        return max(range(1, len(cores) + 1), key=lambda count: (count * capacities[count - 1], count))
    return sum(bool(_listed(devices / "cpu_core/cpus", core.cpus)) for core in cores) or len(cores)


def _listed(path: Path, among: Cpus) -> Cpus:
    """Those of `among` that a list of CPUs names as Linux writes it, 0-3,8; none if it is something else."""
    text = contents(path) or ""
    found = re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", text)
    ranges = [part.split("-") for part in text.split(",")] if found else []
    return frozenset(cpu for cpu in among if any(int(ends[0]) <= cpu <= int(ends[-1]) for ends in ranges))
