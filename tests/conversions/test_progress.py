"""What the converter shows while it works: a second bar on a terminal, nothing of it in a log."""

from __future__ import annotations

import io
import sys

import pytest

from conversions.progress import counted


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("screen", "shown"), [(_Terminal(), True), (io.StringIO(), False)])
def test_what_is_counted_shows_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, shown: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(counted(iter("abc"), 3, "Rounding weights")) == ["a", "b", "c"]
    assert ("Rounding weights: 0 of 3" in screen.getvalue()) == shown
    assert bool(screen.getvalue()) == shown
