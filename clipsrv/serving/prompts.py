"""Vectors of texts that are asked for again and again, as labels are: the ones used last, within a bound of bytes.

Knows nothing of models: whoever keeps them throws them away with the model that made them.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

from clipsrv.serving.outcome import Finished, Timings

#: Bytes of Python's own for each text kept: its entry, and what holds its vector.
_BESIDE = 768


class Prompt(NamedTuple):
    """A `text` for the model, and what of it is the caller's own: another template makes the same text of another
    `label`, and only the label says in which script the caller writes."""

    text: str
    label: str


class Prompts:
    """Used from one event loop."""

    def __init__(self, capacity: int) -> None:
        """Keeps at most `capacity` bytes."""
        self._capacity, self.size = capacity, 0
        self._kept: OrderedDict[Prompt, Finished] = OrderedDict()

    def get(self, prompt: Prompt) -> Finished | None:
        """What is kept of `prompt`, which is then the one used last."""
        found = self._kept.get(prompt)
        if found is not None:
            self._kept.move_to_end(prompt)
        return found

    def keep(self, prompt: Prompt, finished: Finished) -> None:
        """Keeps what came of `prompt`, in the place of those used longest ago; as if it had waited for nothing, and
        with a copy of its vector, since a row of a batch holds the whole batch."""
        kept = replace(finished, vector=finished.vector.copy(), timings=Timings())
        if prompt not in self._kept:
            self.size += _bytes(prompt, kept)
        self._kept[prompt] = kept
        self._kept.move_to_end(prompt)
        while self.size > self._capacity:
            self.size -= _bytes(*self._kept.popitem(last=False))


def _bytes(prompt: Prompt, kept: Finished) -> int:
    return sys.getsizeof(prompt.text) + sys.getsizeof(prompt.label) + kept.vector.nbytes + _BESIDE
