"""What is kept of items that are asked for again: those asked for last, within the bytes allowed, and nothing else."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from clipsrv.serving.cache import BESIDE, VectorCache
from clipsrv.serving.outcome import Finished, Timings

FINISHED = Finished(np.ones(64, np.float32), Timings(queue=1.0, inference=2.0, misses=1), truncated=True, tokens=7)
#: Bytes that one of them counts.
EACH = 4 * 64 + BESIDE


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_what_was_asked_for_longest_ago_makes_room() -> None:
    cache = VectorCache(3 * EACH)
    assert [cache.keep(key(number), FINISHED) for number in range(3)] == [0, 0, 0]
    assert cache.get(key(0)) is not None
    assert cache.keep(key(3), FINISHED) == 1
    assert [number for number in range(4) if cache.get(key(number))] == [0, 2, 3]
    assert (len(cache), cache.size) == (3, 3 * EACH)


def test_a_vector_of_more_bytes_takes_the_room_of_several() -> None:
    cache, long = VectorCache(5 * EACH), Finished(np.ones(64 + 2 * EACH // 4, np.float32), Timings())
    for number in range(5):
        cache.keep(key(number), FINISHED)
    assert cache.keep(key(5), long) == 3
    assert cache.get(key(5)) is not None
    assert cache.size == 5 * EACH


def test_what_is_kept_says_what_the_text_was_and_has_waited_for_nothing() -> None:
    cache = VectorCache(10 * EACH)
    cache.keep(key(0), FINISHED)
    found = cache.get(key(0))
    assert found is not None
    assert (found.truncated, found.tokens, found.timings) == (True, 7, Timings())


def test_a_vector_kept_holds_nothing_of_its_batch_and_nobody_can_change_it() -> None:
    cache, batch = VectorCache(10 * EACH), np.ones((1000, 64), np.float32)
    cache.keep(key(0), Finished(batch[3], Timings()))
    batch[:] = 2
    found = cache.get(key(0))
    assert found is not None
    assert found.vector.base is None
    assert found.vector.tolist() == [1.0] * 64
    with pytest.raises(ValueError, match="read-only"):
        found.vector[0] = 3


def test_one_key_counts_once_and_has_what_came_last() -> None:
    cache = VectorCache(10 * EACH)
    cache.keep(key(0), FINISHED)
    cache.keep(key(0), Finished(np.zeros(64, np.float32), Timings()))
    found = cache.get(key(0))
    assert found is not None
    assert not found.vector.any()
    assert (len(cache), cache.size) == (1, EACH)


def test_what_does_not_fit_is_not_kept_and_nothing_makes_room_for_it() -> None:
    cache = VectorCache(EACH)
    cache.keep(key(0), FINISHED)
    assert cache.keep(key(1), Finished(np.ones(65, np.float32), Timings())) == 0
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None


def test_what_is_kept_takes_no_more_memory_than_is_counted() -> None:
    cache = VectorCache(2**40)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            cache.keep(key(number), FINISHED)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.size / 2 < taken <= cache.size
