"""An index whose rows are all at hand: its vectors in one array, mapped or in memory, and its items by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

import numpy as np
import orjson

from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.exact import nearest, rows_of_block
from clipsrv.search.lines import Lines
from clipsrv.search.streamed import Streamed
from clipsrv.search.words import Block, Facts, Found, Item


class Held:
    """Safe for several threads, until it is closed. Its length is the number of its rows."""

    def __init__(
        self, name: str, facts: Facts, vectors: Vectors, lines: Lines, check: Callable[[], None] = lambda: None
    ) -> None:
        """`vectors` (rows, dimensions) and `lines` belong together; `check` is called before each block is looked at,
        and raises UnusableIndexError if it must not be."""
        self.name, self.facts = name, facts
        self._vectors, self._lines, self._check = vectors, lines, check

    def __len__(self) -> int:
        return len(self._vectors)

    def item(self, row: int) -> Item:
        """The item of a row, counted from 0. Raises UnusableIndexError if there is none to read."""
        return self._lines.item(row)

    def vector(self, row: int) -> Vectors:
        """The vector of a row, (dimensions,), in memory of its own. Raises UnusableIndexError."""
        self._check()
        return np.array(self._vectors[row], np.float32)

    def nearest(self, query: Vectors, limit: int) -> list[Found]:
        """As words.Index has it."""
        return nearest(self.name, self._blocks(), query, limit)

    def close(self) -> None:
        """It must not be asked any more."""
        self._lines.close()

    def _blocks(self) -> Iterator[Block]:
        step = rows_of_block(self.facts.dimensions)
        for first in range(0, len(self), step):
            self._check()
            yield Block(first, self._vectors[first : first + step], partial(self._item_of_block, first))

    def _item_of_block(self, first: int, place: int) -> Item:
        return self.item(first + place)


def hold(index: Streamed) -> Held:
    """Reads all of `index` into memory. Raises UnusableIndexError, also if memory is too short for it."""
    lines = BytesIO()
    try:
        vectors = np.empty((index.facts.rows or 0, index.facts.dimensions), np.float32)
        for block in index.blocks():
            if block.first + len(block.vectors) > len(vectors):  # nobody had counted them
                vectors = np.resize(vectors, (2 * (block.first + len(block.vectors)), index.facts.dimensions))
            vectors[block.first : block.first + len(block.vectors)] = block.vectors
            for place in range(len(block.vectors)):
                lines.write(orjson.dumps(block.item(place)._asdict()) + b"\n")
    except MemoryError:
        raise UnusableIndexError(
            f"There is not enough memory for {index.name}; a .npy needs none of its own."
        ) from None
    lines.seek(0)
    items = Lines(lines, index.name)
    return Held(index.name, index.facts, vectors[: len(items)], items)
