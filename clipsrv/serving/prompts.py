"""Vectors of texts that are asked for again and again, as labels are: the ones used last, within a bound of bytes.

Knows nothing of models: whoever keeps them throws them away with the model that made them.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import replace

from clipsrv.serving.outcome import Finished, Timings

#: Bytes of Python's own for each text kept: its entry, and what holds its vector.
_BESIDE = 768


class Prompts:
    """Used from one event loop."""

    def __init__(self, capacity: int) -> None:
        """Keeps at most `capacity` bytes."""
        self._capacity, self.size = capacity, 0
        self._kept: OrderedDict[str, Finished] = OrderedDict()

    def get(self, text: str) -> Finished | None:
        """What is kept of `text`, which is then the one used last."""
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
        return found

    def keep(self, text: str, finished: Finished) -> None:
        """Keeps what came of `text`, in the place of those used longest ago; as if it had waited for nothing, and with
        a copy of its vector, since a row of a batch holds the whole batch."""
        kept = replace(finished, vector=finished.vector.copy(), timings=Timings())
        if text not in self._kept:
            self.size += _bytes(text, kept)
        self._kept[text] = kept
        self._kept.move_to_end(text)
        while self.size > self._capacity:
            self.size -= _bytes(*self._kept.popitem(last=False))


def _bytes(text: str, kept: Finished) -> int:
    return sys.getsizeof(text) + kept.vector.nbytes + _BESIDE
