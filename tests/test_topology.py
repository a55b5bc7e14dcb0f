"""Threads by the cores, kinds of cores and nodes of a machine, on folders that stand in for /sys."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clipsrv.topology import Threads, inference_threads, keep_to
from tests.support.machine import Machine


class Devices:
    """/sys/devices in a folder, and what of its CPUs this process may use."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder / "sys", monkeypatch
        self.machine = Machine(folder)
        self.allows(range(8))

    def allows(self, cpus: Collection[int]) -> Devices:
        self._monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {*cpus}, raising=False)
        return self

    def write(self, name: str, text: object) -> Devices:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{text}\n".encode(errors="surrogateescape"))
        return self

    def capacities(self, *numbers: object) -> Devices:
        for cpu, number in enumerate(numbers):
            self.write(f"system/cpu/cpu{cpu}/cpu_capacity", number)
        return self

    def cores(self, *lists: str, name: str = "core_cpus_list") -> Devices:
        """Cores by the list of their CPUs, which each of these CPUs shows."""
        for text in lists:
            first, _, last = text.replace("-", ",").partition(",")
            for cpu in {first, last or first}:
                self.write(f"system/cpu/cpu{cpu}/topology/{name}", text)
        return self

    def nodes(self, *lists: str) -> Devices:
        for number, text in enumerate(lists):
            self.write(f"system/node/node{number}/cpulist", text)
        return self

    def quota(self, cores: float) -> Devices:
        self.machine.stands("0::/service").tree("unified")
        self.machine.group("unified/service", cpu__max=f"{round(100_000 * cores)} 100000")
        return self

    def threads(self, workers: int = 1, number: int = 1) -> Threads:
        return inference_threads(workers, number, proc=self.machine.proc, devices=self.folder)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Devices:
    """Eight CPUs of which nothing is told."""
    return Devices(tmp_path, monkeypatch)


#: Four cores of two CPUs each, as most of Linux numbers them, and as some virtual machines do.
PAIRS = ("0,4", "1,5", "2,6", "3,7")
NEIGHBOURS = ("0-1", "2-3", "4-5", "6-7")


# --- cores of several CPUs ---


@pytest.mark.parametrize("lists", [PAIRS, NEIGHBOURS])
@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_cpus_of_one_core_have_one_thread(devices: Devices, lists: tuple[str, ...], name: str) -> None:
    assert devices.cores(*lists, name=name).threads() == Threads(4, "one a core of several CPUs")


def test_where_each_cpu_is_a_core_there_are_as_many_threads(devices: Devices) -> None:
    assert devices.cores(*map(str, range(8))).threads() == Threads(8, "one a core")


@pytest.mark.parametrize(
    ("allowed", "threads"),
    [
        ([0, 1, 2, 3], 4),  # one CPU of each core
        ([0, 4], 2),  # a machine of one core: both
        ([0, 4, 1], 2),
        ([5], 1),
        ([4, 5, 6, 7], 4),
    ],
)
def test_cores_count_of_which_one_cpu_is_allowed(devices: Devices, allowed: list[int], threads: int) -> None:
    assert devices.allows(allowed).cores(*PAIRS).threads().count == threads


def test_a_machine_of_one_cpu_has_one_thread(devices: Devices) -> None:
    assert devices.allows([3]).threads() == Threads(1, "one a core")


def test_a_virtual_machine_whose_two_cpus_are_one_core_keeps_both(devices: Devices) -> None:
    assert devices.allows([0, 1]).cores("0-1").threads() == Threads(2, "one a CPU of the only core")
    assert devices.threads(2) == Threads(1, "one a CPU of the only core for 2 workers")


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (1.5, 2), (3, 3), (4, 4), (6, 4), (8, 4)])
def test_the_quota_bounds_threads_but_is_no_reason_for_two_on_a_core(
    devices: Devices, cores: float, threads: int
) -> None:
    found = devices.cores(*PAIRS).quota(cores).threads()
    assert found == Threads(threads, "the CPU quota" if threads < 4 else "one a core of several CPUs")


@pytest.mark.parametrize(
    "text",
    ["", "all", "0-", "9,10", "-1", "0x1", "0-4096", "0-7,8-9,", "0-" + 5000 * "9", "\udcff"],
    ids=["empty", "a word", "half", "others", "negative", "hex", "all", "half of two", "long", "no text"],
)
def test_a_list_that_cannot_be_right_leaves_a_core_to_each_cpu(devices: Devices, text: str) -> None:
    devices.allows(range(16))
    for cpu in range(16):
        devices.write(f"system/cpu/cpu{cpu}/topology/core_cpus_list", text)
    alone = {9, 10} if text == "9,10" else set()  # these two are in it
    assert devices.threads().count == 16 - len(alone) // 2


def test_a_cpu_that_no_other_names_is_a_core(devices: Devices) -> None:
    devices.cores("0-1").write("system/cpu/cpu1/topology/core_cpus_list", "1")
    assert devices.threads().count == 8


# --- kinds of cores ---


@pytest.mark.parametrize(
    ("numbers", "threads"),
    [
        ([1024] * 8, 8),
        ([1024] * 4 + [400] * 4, 4),
        ([400] * 6 + [1024] * 2, 8),  # two fast ones do less than all, slow as the six are
        ([1024] + [900] * 3 + [300] * 4, 4),
        ([1024] * 4 + [600] * 4, 8),
        ([1024] * 7 + ["unknown"], 8),
        ([1024] * 7 + ["²"], 8),
        ([1024] * 7 + [5000 * "1"], 8),
        ([1024] * 4, 8),  # of the others nothing is known
        ([0] * 8, 8),
    ],
)
def test_one_inference_takes_the_cores_whose_slowest_does_not_hold_the_others_up(
    devices: Devices, numbers: list[object], threads: int
) -> None:
    assert devices.capacities(*numbers).threads().count == threads


@pytest.mark.parametrize(
    ("listed", "threads"), [("0-3,6", 5), ("0", 1), ("4-15", 4), ("16-31", 8), ("all of them", 8), ("", 8)]
)
def test_of_a_hybrid_cpu_without_capacities_the_performance_cores_are_taken(
    devices: Devices, listed: str, threads: int
) -> None:
    assert devices.write("cpu_core/cpus", listed).threads().count == threads


def test_of_a_hybrid_cpu_whose_fast_cores_alone_have_two_cpus_each_has_one_thread(devices: Devices) -> None:
    devices.cores("0-1", "2-3", "4", "5", "6", "7").write("cpu_core/cpus", "0-3")
    assert devices.threads() == Threads(2, "the fast of 6 cores")
    assert devices.allows([1, 3, 4, 5]).threads().count == 2
    assert devices.allows([4, 5, 6]).threads() == Threads(3, "one a core")


def test_a_quota_is_a_quota_of_fast_cores_too(devices: Devices) -> None:
    assert devices.capacities(*[1024] * 4, *[400] * 4).quota(1.5).threads() == Threads(2, "the CPU quota")


def test_a_system_that_tells_neither_affinity_nor_kinds_has_as_many_threads_as_cores(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert devices.threads() == Threads(6, "one a core")
    assert devices.threads(4) == Threads(1, "one a core")


# --- several processes, several nodes ---


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (9, 1), (100, 1)])
def test_workers_divide_the_cores_of_one_node_and_keep_to_no_cpu(devices: Devices, workers: int, threads: int) -> None:
    for number in (1, workers):
        found = devices.nodes("0-7").threads(workers, number)
        assert (found.count, found.cpus) == (threads, None)


def test_workers_divide_the_quota_too(devices: Devices) -> None:
    assert devices.quota(5).threads(2) == Threads(2, "the CPU quota for 2 workers")
    assert devices.threads(8) == Threads(1, "the CPU quota for 8 workers")


def test_the_only_process_takes_the_cores_of_all_nodes_and_says_so(devices: Devices) -> None:
    assert devices.nodes("0-3", "4-7").threads() == Threads(8, "one a core, 2 NUMA nodes")


def test_each_worker_keeps_to_one_node_and_divides_it_with_those_that_do_too(devices: Devices) -> None:
    devices.nodes("0-3", "4-7")
    first, second = frozenset(range(4)), frozenset(range(4, 8))
    assert [devices.threads(2, number) for number in (1, 2)] == [
        Threads(4, "one a core, NUMA node 0 of 2", first),
        Threads(4, "one a core, NUMA node 1 of 2", second),
    ]
    three = [devices.threads(3, number) for number in (1, 2, 3)]
    assert [(one.count, one.cpus) for one in three] == [(2, first), (4, second), (2, first)]
    assert [devices.threads(20, number).count for number in (1, 20)] == [1, 1]


def test_a_node_of_more_cores_has_more_workers_and_none_is_left_out(devices: Devices) -> None:
    devices.nodes("0-5", "6-7")
    assert [devices.threads(4, number).count for number in (1, 2, 3, 4)] == [2, 2, 2, 2]
    devices.nodes("0-6", "7")
    assert [devices.threads(3, number).count for number in (1, 2, 3)] == [3, 1, 3]


def test_fewer_workers_than_nodes_keep_to_some_nodes_each_and_leave_none_out(devices: Devices) -> None:
    devices.nodes("0-1", "2-3", "4-5", "6-7")
    found = [devices.threads(3, number) for number in (1, 2, 3)]
    assert [threads.count for threads in found] == [4, 2, 2]
    assert found[0] == Threads(4, "one a core, NUMA node 0, 3 of 4", frozenset({0, 1, 6, 7}))
    assert {cpu for threads in found for cpu in threads.cpus or ()} == {*range(8)}


def test_a_worker_has_both_cpus_of_its_cores_for_what_is_no_inference(devices: Devices) -> None:
    devices.cores(*PAIRS).nodes("0-1,4-5", "2-3,6-7")
    assert devices.threads(2, 2) == Threads(2, "one a core of several CPUs, NUMA node 1 of 2", frozenset({2, 3, 6, 7}))


def test_nodes_of_which_no_cpu_is_allowed_do_not_count(devices: Devices) -> None:
    devices.nodes("0-3", "4-7", "", "nonsense").write("system/node/node1x/cpulist", "0").write(
        "system/node/node9/meminfo", "a node of memory only"
    )
    assert devices.allows([0, 1, 2]).threads(2) == Threads(1, "one a core for 2 workers")


def test_a_thread_and_those_it_starts_keep_to_the_cpus_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    one = frozenset([min(before)])

    def kept() -> set[int]:
        assert keep_to(one)
        with ThreadPoolExecutor(1) as started:
            return started.submit(os.sched_getaffinity, 0).result(10)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(kept).result(10) == one
    assert os.sched_getaffinity(0) == before


def test_a_system_that_lets_nobody_choose_its_cpus_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(who: int, cpus: Collection[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert not keep_to(frozenset([0]))
