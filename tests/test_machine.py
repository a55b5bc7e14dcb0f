"""Cores and memory as cgroups of both versions tell them, on trees of folders that stand in for them."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clipsrv.cgroups import own_groups
from clipsrv.machine import (
    free_memory,
    give_way,
    keep_large_blocks_apart,
    memory_limit,
    physical_memory,
    usable_cores,
)
from tests.support.machine import Machine


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_thread_that_gives_way_and_those_it_starts_go_after_the_others() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    def both() -> tuple[int, int]:
        give_way()
        with ThreadPoolExecutor(1) as started:
            return priority(), started.submit(priority).result(10)

    before = priority()
    with ThreadPoolExecutor(1) as pool:
        own, started = pool.submit(both).result(10)
    assert own == started == min(before + 10, 19)
    assert priority() == before


def test_where_threads_have_no_priority_of_their_own_or_may_not_change_it_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[int]()

    def refuse(which: int, who: int, priority: int) -> None:
        asked.append(who)
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    give_way()
    assert asked == [0]
    monkeypatch.setattr(sys, "platform", "darwin")
    give_way()
    assert len(asked) == 1


def test_large_blocks_go_back_to_the_system_whatever_was_freed_before() -> None:
    program = """
import ctypes
from clipsrv.machine import keep_large_blocks_apart
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
def holes(size, count):
    before, pairs = resident(), [(libc.malloc(size), libc.malloc(1 << 16)) for _ in range(count)]
    for large, above in pairs:
        ctypes.memset(large, 1, size)
        libc.free(large)
    return resident() - before >> 20
libc.free(libc.malloc(24 << 20))  # from now on glibc keeps smaller ones
kept = holes(16 << 20, 1)
keep_large_blocks_apart()
print(kept, holes(20 << 20, 1), holes(384 << 10, 64))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, of_one, of_many = map(int, done.stdout.split())
    assert kept > 8
    assert max(of_one, of_many) < 4
    keep_large_blocks_apart()


# --- what a group's files mean ---


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("3200000 100000", 8),
        ("200000", 8),
        ("200000 0", 8),
        ("garbage", 8),
        ("", 8),
    ],
)
def test_cores_are_the_quota_rounded_up_or_the_affinity(machine: Machine, cpu_max: str, cores: int) -> None:
    assert usable_cores(machine.tree("cg").stands("0::/").group("cg", cpu__max=cpu_max).proc) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("400000", 4)])
def test_cores_of_version_1(machine: Machine, quota: str, cores: int) -> None:
    machine.tree("cpu", "cpu", "cpuacct").stands("3:cpu,cpuacct:/")
    machine.group("cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert usable_cores(machine.proc) == cores


def test_without_cgroup_the_affinity_counts(machine: Machine, tmp_path: Path) -> None:
    assert usable_cores(machine.proc) == 8
    assert usable_cores(tmp_path / "none") == 8


def test_without_affinity_the_count_of_cores_counts(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores(machine.proc) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(machine.proc) == 1


@pytest.mark.parametrize(("text", "limit"), [("1073741824", 2**30), ("max", None), ("", None)])
def test_memory_is_the_cgroups_limit(machine: Machine, text: str, limit: int | None) -> None:
    assert memory_limit(machine.tree("cg").stands("0::/").group("cg", memory__max=text).proc) == limit


@pytest.mark.parametrize(("text", "limit"), [("2097152", 2**21), ("9223372036854771712", None)])
def test_memory_of_version_1(machine: Machine, text: str, limit: int | None) -> None:
    machine.tree("memory", "memory").stands("4:memory:/").group("memory", memory__limit_in_bytes=text)
    assert memory_limit(machine.proc) == limit


def test_without_cgroup_there_is_no_limit(machine: Machine, tmp_path: Path) -> None:
    assert memory_limit(machine.proc) is None
    assert memory_limit(tmp_path / "none") is None


def test_free_memory_is_what_the_tightest_group_has_left_with_what_its_caches_hold(machine: Machine) -> None:
    machine.stands("0::/a/b").tree("fs")
    machine.group("fs/a", memory__max="1000", memory__current="900", memory__stat="anon 5")
    caches = "anon 5\nactive_file 100\ninactive_file 250\nslab 7"
    machine.group("fs/a/b", memory__max="800", memory__current="700", memory__stat=caches)
    assert free_memory(machine.proc) == 100
    machine.group("fs/a", memory__max="max")
    assert free_memory(machine.proc) == 450
    machine.group("fs/a/b", memory__current="2000", memory__stat="")
    assert free_memory(machine.proc) == 0


def test_free_memory_of_version_1(machine: Machine) -> None:
    machine.stands("4:memory:/a").tree("v1/memory", "memory")
    files = {"memory__limit_in_bytes": "800", "memory__usage_in_bytes": "700"}
    machine.group("v1/memory/a", **files, memory__stat="active_file 9\ntotal_active_file 40\ntotal_inactive_file 2")
    assert free_memory(machine.proc) == 142


def test_free_memory_is_what_the_machine_has_where_no_group_is_tighter(machine: Machine) -> None:
    assert free_memory(machine.proc) is None
    (machine.proc.parent / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:      2 kB\n")
    assert free_memory(machine.proc) == 2048


def test_physical_memory_is_what_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert physical_memory() > 2**27

    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert physical_memory() == 0


# --- where the process stands ---


def test_a_service_below_the_root_is_bound_by_its_own_group(machine: Machine) -> None:
    """systemd with CPUQuota=100% and MemoryMax=1G."""
    machine.tree("cg").stands("0::/system.slice/clipsrv.service")
    machine.group("cg/system.slice/clipsrv.service", cpu__max="100000 100000", memory__max=str(2**30))
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (1, 2**30)


def test_a_service_of_version_1_is_bound_by_its_own_group_in_each_tree(machine: Machine) -> None:
    machine.tree("cpu", "cpu").tree("memory", "memory").tree("systemd", "name=systemd")
    machine.stands("4:memory:/web/clipsrv", "3:cpuset:/", "1:cpu:/test-group", "0::/")
    machine.group("cpu/test-group", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    machine.group("memory/web/clipsrv", memory__limit_in_bytes=str(2**30))
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (1, 2**30)


def test_version_1_for_some_controllers_and_version_2_for_others(machine: Machine) -> None:
    machine.tree("unified").tree("memory", "memory").stands("4:memory:/a", "0::/b")
    machine.group("memory/a", memory__limit_in_bytes=str(2**30)).group("unified/b", cpu__max="300000 100000")
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (3, 2**30)


@pytest.mark.parametrize(
    "tightest", ["cg", "cg/user.slice", "cg/user.slice/app.slice", "cg/user.slice/app.slice/a.scope"]
)
def test_the_tightest_of_all_groups_from_its_own_to_the_root_counts(machine: Machine, tightest: str) -> None:
    machine.tree("cg").stands("0::/user.slice/app.slice/a.scope")
    for folder in ("cg/user.slice", "cg/user.slice/app.slice", "cg/user.slice/app.slice/a.scope"):
        machine.group(folder, cpu__max="500000 100000", memory__max=str(2**33))
    machine.group(tightest, cpu__max="200000 100000", memory__max=str(2**31))
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (2, 2**31)


def test_groups_beside_its_own_do_not_count(machine: Machine) -> None:
    machine.tree("cg").stands("0::/a").group("cg/a", cpu__max="max 100000", memory__max="max")
    machine.group("cg/b", cpu__max="100000 100000", memory__max="1").group("cg/a/child", memory__max="1")
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (8, None)


def test_a_container_with_a_view_of_its_own_sees_its_group_as_the_root(machine: Machine) -> None:
    """docker run --cpus 1 --memory 300m, version 2."""
    machine.tree("sys/fs/cgroup").stands("0::/")
    machine.group("sys/fs/cgroup", cpu__max="100000 100000", memory__max=str(300 * 2**20))
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (1, 300 * 2**20)


def test_a_container_whose_own_group_is_mounted_under_the_hosts_name(machine: Machine) -> None:
    """The same of version 1: the path is the host's, and the mount shows what lies at it."""
    place = "/docker/0123abcd"
    machine.tree("cg/memory", "memory", root=place).tree("cg/cpu", "cpu", "cpuacct", root=place)
    machine.stands(f"4:memory:{place}/worker", f"1:cpu,cpuacct:{place}")
    machine.group("cg/memory", memory__limit_in_bytes=str(300 * 2**20))
    machine.group("cg/memory/worker", memory__limit_in_bytes=str(200 * 2**20))
    machine.group("cg/cpu", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert (usable_cores(machine.proc), memory_limit(machine.proc)) == (1, 200 * 2**20)


@pytest.mark.parametrize(
    ("root", "place"), [("/", "/../../elsewhere"), ("/docker/mine", "/../other"), ("/docker/mine", "/docker/another")]
)
def test_a_place_outside_of_what_is_mounted_leaves_the_top_of_it(machine: Machine, root: str, place: str) -> None:
    machine.tree("cg", root=root).stands(f"0::{place}").group("cg", cpu__max="200000 100000")
    assert list(own_groups("cpu", machine.proc)) == [machine.proc.parent / "cg"]
    assert usable_cores(machine.proc) == 2


def test_a_mount_with_a_blank_in_its_path_is_found(machine: Machine) -> None:
    machine.tree("control groups").stands("0::/a").group("control groups/a", memory__max="4096")
    assert memory_limit(machine.proc) == 4096


def test_lines_that_cannot_be_understood_are_passed_over(machine: Machine) -> None:
    machine.tree("cg").stands("", "nonsense", "1:cpu", "0::/a").group("cg/a", cpu__max="100000 100000")
    with (machine.proc / "mountinfo").open("a") as file:
        file.write("\n1 2\n3 4 5 - cgroup2\n")
    assert usable_cores(machine.proc) == 1
