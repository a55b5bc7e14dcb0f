"""What became of loading models: what is tried again, and when."""

from __future__ import annotations

from clipsrv.errors import ModelCorruptError, ModelTooLargeError
from clipsrv.serving.history import TRY_AGAIN_AFTER, History


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_failed_is_refused_for_a_while_unless_it_has_changed() -> None:
    clock = Clock()
    history = History(clock)
    assert history.refusal("a", 1) is None
    history.failed("a", 1, ModelCorruptError("broken"))
    refusal = history.refusal("a", 1)
    assert (type(refusal), str(refusal)) == (ModelCorruptError, "broken")
    assert history.refusal("a", 2) is None
    assert history.refusal("b", 1) is None
    clock.now = TRY_AGAIN_AFTER
    assert history.refusal("a", 1) is None
    assert str(history.failure("a")) == "broken", "and it is still what became of it"
    history.loaded("a", 1)
    assert history.failure("a") is None


def test_each_who_is_told_has_an_error_of_its_own() -> None:
    history = History()
    history.failed("a", 1, ModelCorruptError("broken", file="x"))
    first, second = history.refusal("a", 1), history.refusal("a", 1)
    assert first is not second
    assert first is not None
    assert first.details == {"file": "x"}


def test_another_version_is_worth_loading_unless_it_is_known_to_fail() -> None:
    clock = Clock()
    history = History(clock)
    assert not history.is_stale("a", 1), "it was never loaded"
    history.loaded("a", 1)
    assert not history.is_stale("a", 1)
    assert history.is_stale("a", 2)
    history.failed("a", 2, ModelCorruptError("broken"))
    clock.now = 1000 * TRY_AGAIN_AFTER
    assert not history.is_stale("a", 2)
    assert history.is_stale("a", 3)


def test_a_version_for_which_memory_was_short_is_tried_again_later() -> None:
    clock = Clock()
    history = History(clock)
    history.loaded("a", 1)
    history.failed("a", 2, ModelTooLargeError("no room"))
    assert not history.is_stale("a", 2)
    clock.now = TRY_AGAIN_AFTER
    assert history.is_stale("a", 2)
