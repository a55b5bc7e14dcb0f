"""The words of searching: what an index holds, and what is found in it. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # numpy would keep `search --help` waiting
    from clipsrv.runtime.vectors import Vectors


#: How the address of a table begins.
URL_SCHEMES = ("postgresql://", "postgres://")


class Item(NamedTuple):
    """One indexed image: its id, where it lay when it was embedded, and the sha256 of its bytes, "" if nobody knows."""

    id: str
    path: str
    sha256: str


class Found(NamedTuple):
    """An item, and the cosine of its vector and the query's."""

    item: Item
    score: float


class Block(NamedTuple):
    """Some rows of an index in their order, from the row `first` on: vectors (n, dimensions), float32, and the item of
    each by its place in the block."""

    first: int
    vectors: Vectors
    item: Callable[[int], Item]


@dataclass(frozen=True)
class Facts:
    """Whose vectors an index holds. `model` is the name of the model that made them, "" if nobody knows; `rows` None if
    they were not counted."""

    embedding_id: str
    dimensions: int
    model: str = ""
    rows: int | None = None


class Index(Protocol):
    """What can be searched. `name` is its path, or a table's name: never an address with a password."""

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> Facts: ...

    def nearest(self, query: Vectors, limit: int) -> list[Found]:
        """At most `limit` items, best first, those that are equally near in the order of the index; `query` is
        (dimensions,), of unit length. Raises UnusableIndexError."""

    def close(self) -> None: ...
