"""What a worker takes of the machine."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsrv.config import Config
from clipsrv.server import lifecycle
from clipsrv.topology import Threads

ONE = frozenset([min(os.sched_getaffinity(0))])


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """What the second of two workers is given: a node of one CPU."""
    threads = Threads(1, "one a core, NUMA node 1 of 2", ONE)
    monkeypatch.setattr(lifecycle, "threads_of", lambda config, number: threads if number == 2 else None)
    return threads


def test_a_worker_and_the_threads_it_starts_keep_to_its_node(second: Threads) -> None:
    def taken() -> tuple[Config, Threads, set[int]]:
        config, threads = lifecycle.take_share(Config(workers=2), 2)
        with ThreadPoolExecutor(1) as started:
            return config, threads, started.submit(os.sched_getaffinity, 0).result(10)

    before = os.sched_getaffinity(0)
    with ThreadPoolExecutor(1) as pool:
        config, threads, kept = pool.submit(taken).result(10)
    assert (config.threads, threads) == (1, second)
    assert kept == ONE
    assert os.sched_getaffinity(0) == before


def test_a_worker_that_may_not_choose_its_cpus_says_so_and_serves(
    second: Threads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(who: int, cpus: Collection[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    config, threads = lifecycle.take_share(Config(workers=2), 2)
    assert (config.threads, threads) == (1, second)
    assert "may not keep to its NUMA node" in caplog.text
