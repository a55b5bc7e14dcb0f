"""The items of an index that lie beside its vectors: one JSON object a line, read by its number."""

from __future__ import annotations

import threading
from typing import BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.words import Item

_AT_ONCE = 2**24


class Lines:
    """Safe for several threads. Holds 8 bytes a line in memory; the lines stay where they are."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Finds out where each line begins. `file`, read from its start, is this object's own from here on. Raises
        OSError."""
        self._file, self._name, self._lock = file, name, threading.Lock()
        ends: list[NDArray[np.int64]] = []
        at = 0
        while block := file.read(_AT_ONCE):
            ends.append(at + 1 + np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")))
            at += len(block)
        self._starts = np.concatenate([np.zeros(1, np.int64), *ends])

    def __len__(self) -> int:
        """Lines that have an end: one that has none was cut short."""
        return len(self._starts) - 1

    def item(self, number: int) -> Item:
        """The item of a line, counted from 0. Raises UnusableIndexError if the line tells of none."""
        start, end = map(int, self._starts[number : number + 2])
        with self._lock:
            self._file.seek(start)
            line = self._file.read(end - start)
        try:
            return item_of(orjson.loads(line))
        except ValueError:
            raise UnusableIndexError(f"{self._name}, line {number + 1:,}, has no id, path and sha256.") from None

    def close(self) -> None:
        self._file.close()


def item_of(record: object) -> Item:
    """The item that a record of an output tells of. Raises ValueError if it tells of none."""
    found = [record.get(name) for name in Item._fields] if isinstance(record, dict) else [None]
    if not all(isinstance(value, str) for value in found):
        raise ValueError("it has no id, path and sha256")
    return Item(*found)
