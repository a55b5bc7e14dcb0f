"""Pixels held together by decoding threads never pass the budget, and every thread gets its turn."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsrv.images.budget import PixelBudget


class Watched:
    """Counts what is held at once, from inside the holds."""

    def __init__(self, budget: PixelBudget) -> None:
        self._budget, self._lock, self._held = budget, threading.Lock(), 0
        self.most = 0

    def work(self, pixels: int) -> None:
        with self._budget.hold(pixels):
            with self._lock:
                self._held += pixels
                self.most = max(self.most, self._held)
            with self._lock:
                self._held -= pixels


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 100), max_size=40))
def test_threads_together_never_hold_more_than_the_budget(sizes: list[int]) -> None:
    watched = Watched(PixelBudget(100))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(watched.work, sizes))
    assert watched.most <= 100


def test_an_image_that_does_not_fit_waits_until_it_does() -> None:
    budget, entered = PixelBudget(10), threading.Event()

    def second() -> None:
        with budget.hold(5):
            entered.set()

    with budget.hold(6):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join()


def test_an_image_larger_than_the_budget_takes_all_of_it() -> None:
    budget = PixelBudget(10)
    for _ in range(2):
        with budget.hold(1000):
            pass


def test_a_failure_gives_the_pixels_back() -> None:
    budget = PixelBudget(10)
    with pytest.raises(ZeroDivisionError), budget.hold(10):
        raise ZeroDivisionError
    assert budget.in_use == 0
    with budget.hold(10):
        assert budget.in_use == 10
