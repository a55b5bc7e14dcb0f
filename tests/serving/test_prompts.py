"""What is kept of texts that are asked for again: the ones used last, within the bytes allowed, and nothing else."""

from __future__ import annotations

import numpy as np

from clipsrv.serving.outcome import Finished, Timings
from clipsrv.serving.prompts import Prompt, Prompts

FINISHED = Finished(np.ones(64, np.float32), Timings(queue=1.0, inference=2.0), truncated=True)
A = Prompt("a", "a")


def test_what_was_used_longest_ago_makes_room() -> None:
    prompts = Prompts(3500)
    for text in ("a", "b", "c"):
        prompts.keep(Prompt(text, text), FINISHED)
    assert prompts.get(A) is not None
    prompts.keep(Prompt("d", "d"), FINISHED)
    assert [text for text in "abcd" if prompts.get(Prompt(text, text))] == ["a", "c", "d"]
    assert prompts.size <= 3500


def test_what_is_kept_says_what_the_text_was_and_has_waited_for_nothing() -> None:
    prompts = Prompts(10_000)
    prompts.keep(A, FINISHED)
    found = prompts.get(A)
    assert found is not None
    assert found.truncated
    assert found.timings == Timings()


def test_a_vector_kept_holds_nothing_of_its_batch_and_one_text_counts_once() -> None:
    prompts, batch = Prompts(10_000), np.ones((1000, 64), np.float32)
    prompts.keep(A, Finished(batch[3], Timings()))
    found = prompts.get(A)
    assert found is not None
    assert found.vector.base is None
    size = prompts.size
    prompts.keep(A, Finished(batch[3], Timings()))
    assert prompts.size == size


def test_where_nothing_fits_nothing_is_kept() -> None:
    prompts = Prompts(100)
    prompts.keep(A, FINISHED)
    assert prompts.get(A) is None
    assert prompts.size == 0
