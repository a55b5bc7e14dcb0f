"""Cores and memory as cgroups tell them, on folders that stand in for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipsrv.machine import memory_limit, physical_memory, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("3200000 100000\n", 8),
        ("200000\n", 8),
        ("200000 0\n", 8),
        ("garbage\n", 8),
        ("", 8),
    ],
)
def test_cores_are_the_quota_rounded_up_or_the_affinity(tmp_path: Path, cpu_max: str, cores: int) -> None:
    assert usable_cores(write(tmp_path, "cpu.max", cpu_max)) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("400000", 4)])
def test_cores_of_the_older_cgroups(tmp_path: Path, quota: str, cores: int) -> None:
    write(tmp_path, "cpu/cpu.cfs_quota_us", quota)
    assert usable_cores(write(tmp_path, "cpu/cpu.cfs_period_us", "100000\n")) == cores


def test_without_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


def test_without_affinity_the_count_of_cores_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "1073741824\n", 2**30),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2097152\n", 2**21),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_memory_is_the_cgroups_limit(tmp_path: Path, name: str, text: str, limit: int | None) -> None:
    assert memory_limit(write(tmp_path, name, text)) == limit


def test_without_cgroup_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None


def test_physical_memory_is_what_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert physical_memory() > 2**27

    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert physical_memory() == 0
