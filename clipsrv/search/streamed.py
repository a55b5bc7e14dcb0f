"""An index that is read from its beginning to its end for each question, a block at a time, in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.exact import nearest
from clipsrv.search.words import Block, Facts, Found


@dataclass(frozen=True)
class Streamed:
    """`read` gives its blocks in their order, each time anew."""

    name: str
    facts: Facts
    read: Callable[[], Iterator[Block]]

    def blocks(self) -> Iterator[Block]:
        """All rows. Raises UnusableIndexError, at the end if they are not as many as there should be."""
        rows = 0
        try:
            for block in self.read():
                yield block
                rows += len(block.vectors)
        except OSError as error:
            raise UnusableIndexError(f"Cannot read {self.name}: {error.strerror or error}.") from None
        if self.facts.rows not in (None, rows):
            raise UnusableIndexError(
                f"{self.name} has {rows:,} rows and its manifest says {self.facts.rows:,}: it was cut short."
            )
        if not rows:
            raise UnusableIndexError(f"{self.name} holds no vectors.")

    def nearest(self, query: Vectors, limit: int) -> list[Found]:
        """As words.Index has it."""
        return nearest(self.name, self.blocks(), query, limit)

    def close(self) -> None:
        """Nothing is held."""
