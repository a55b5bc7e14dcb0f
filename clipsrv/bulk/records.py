"""The words of the bulk job: what is read, what is stored, and what a store must do. Data only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # numpy would keep `embed --help` waiting
    from clipsrv.runtime.vectors import Vectors


@dataclass(frozen=True)
class Entry:
    """One image to embed. `id` is unique in a job; `path` is relative to the working directory or absolute."""

    id: str
    path: str


@dataclass(frozen=True)
class Row:
    """One image that has its vector. `sha256` is of the file's bytes, in hexadecimal."""

    id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class BadFile:
    """One image that cannot be used; `code` is an ImageError's, or unreadable_file, or invalid_name."""

    id: str
    path: str
    code: str
    message: str


@dataclass(frozen=True)
class Shard:
    """The unit that is stored whole or not at all. `vectors` is (len(rows), dimensions), float32, of unit length."""

    number: int
    rows: list[Row]
    vectors: Vectors
    bad: list[BadFile] = field(default_factory=list)


#: What must be equal for a job to continue another: model, preprocessing, options and inputs, ready for JSON.
Facts = Mapping[str, Any]


class Store(Protocol):
    """Where shards go. Methods but `write` and `finish` may be called from several threads."""

    @property
    def shards_done(self) -> int:
        """How many shards from the start need no work."""

    def bad_before(self) -> Iterator[BadFile]:
        """Bad images of the shards that need no work."""

    def sha256_of(self, entry_id: str) -> str | None:
        """Of the image stored under this id, if the store can tell."""

    def holds(self, sha256: str) -> bool:
        """Whether an image with this content is stored."""

    def vector(self, sha256: str) -> Vectors | None:
        """The vector stored for this content: (dimensions,)."""

    def write(self, shard: Shard) -> None:
        """Durable when it returns. Raises OutputError, and then nothing of the shard is stored."""

    def finish(self) -> str:
        """Completes the output and says in a few words what it is. Raises OutputError."""

    def close(self) -> None:
        """Releases locks and connections; what is stored stays."""
