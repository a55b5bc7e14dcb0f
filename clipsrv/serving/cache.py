"""Vectors that were asked for: those asked for last, within a bound of bytes, by whatever they are vectors of.

Knows nothing of models: serving/keys.py says what makes two items the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from clipsrv.serving.outcome import Finished, Timings

#: Bytes of Python's own for each vector kept: its key, its place, and what holds it.
BESIDE = 640


class VectorCache:
    """Used from one event loop."""

    def __init__(self, capacity: int) -> None:
        """Keeps at most `capacity` bytes."""
        self._capacity, self.size = capacity, 0
        self._kept: OrderedDict[bytes, Finished] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Finished | None:
        """What is kept under `key`, which is then the one asked for last."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: bytes, finished: Finished) -> int:
        """Keeps what came of an item, in the place of those asked for longest ago; as if it had waited for nothing, and
        with a copy of its vector, since a row of a batch holds the whole batch. Gives how many made room."""
        if _bytes(finished) > self._capacity:
            return 0
        vector = finished.vector.copy()
        vector.flags.writeable = False
        if (old := self._kept.pop(key, None)) is not None:
            self.size -= _bytes(old)
        self._kept[key] = replace(finished, vector=vector, timings=Timings())
        self.size += _bytes(finished)
        before = len(self._kept)
        while self.size > self._capacity:
            self.size -= _bytes(self._kept.popitem(last=False)[1])
        return before - len(self._kept)


def _bytes(finished: Finished) -> int:
    return finished.vector.nbytes + BESIDE
