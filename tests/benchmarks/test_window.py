"""Which answers of a load count: none of the warm-up, whole bursts, and all errors."""

from __future__ import annotations

import time

import pytest

from benchmarks.window import Window


def drive(window: Window, times: list[float], error: str | None = None) -> int:
    """Feeds answers that came at these seconds after now; returns how many were taken."""
    start = time.monotonic()
    for number, moment in enumerate(times, 1):
        if window.add(0.1, error, start + moment):
            return number
    return len(times)


def test_a_server_that_answers_in_bursts_is_measured_over_whole_ones() -> None:
    """Eight at once, once a second: eight a second, wherever the window's seconds end."""
    bursts = [burst + 0.001 * place for burst in range(1, 40) for place in range(8)]
    for seconds in (5.0, 5.3, 5.9):
        window = Window(8, warm_up=2.5, seconds=seconds)
        drive(window, bursts)
        assert len(window.outcome.latencies) / window.outcome.seconds == pytest.approx(8, rel=0.01)


def test_answers_that_come_evenly_are_counted_evenly() -> None:
    window = Window(1, warm_up=1, seconds=4)
    drive(window, [0.1 * number for number in range(1, 100)])
    assert len(window.outcome.latencies) / window.outcome.seconds == pytest.approx(10, rel=0.01)
    assert window.outcome.seconds == pytest.approx(4, abs=0.11)


def test_the_warm_up_lasts_until_every_caller_was_answered_once() -> None:
    edges: list[str] = []
    window = Window(4, warm_up=0, seconds=100, at_edge=lambda: edges.append("edge"))
    assert drive(window, [1, 2, 3]) == 3
    assert edges == []
    drive(window, [4, 5])
    assert (edges, len(window.outcome.latencies)) == (["edge"], 1)


def test_slow_servers_get_longer_than_asked_until_three_answered() -> None:
    window = Window(1, warm_up=0, seconds=1)
    assert drive(window, [10, 20, 30, 40, 50]) == 4


def test_errors_are_counted_apart_and_the_first_is_kept() -> None:
    window = Window(1, warm_up=0, seconds=100)
    drive(window, [1])
    window.add(0.1, "429 full")
    window.add(0.1, "500 broken")
    assert (window.outcome.errors, window.outcome.first_error, window.outcome.latencies) == (2, "429 full", [])


def test_a_server_that_only_fails_is_given_up() -> None:
    window = Window(1, warm_up=0, seconds=1e9)
    assert drive(window, [0.1 * number for number in range(5000)], "500") < 1100
