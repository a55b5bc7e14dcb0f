"""The words of the bulk job: what is read, what is stored, what a source and a store must do. Data only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # numpy would keep `embed --help` waiting
    from clipsrv.runtime.vectors import Vectors


@dataclass(frozen=True)
class Entry:
    """One image to embed. `id` is unique in a job; `path` is what its source reads it by, for a file its path,
    relative to the working directory or absolute. `size` in bytes and `etag`, a mark that another content has not, are
    known where a listing of an object store told them."""

    id: str
    path: str
    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Row:
    """One image that has its vector. `sha256` is of the image's bytes, in hexadecimal."""

    id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class BadFile:
    """One image that cannot be used, in words that any output can hold.

    `code` is an ImageError's, or bad_entry (a line of a list that names no image), duplicate_id, invalid_name (no
    output can hold the id or the path, or this one cannot), refused_row (the database's own rules), took_too_long,
    unreadable_file; bad_archive (a tar, or an image in one or in a row); of what lies elsewhere fetch_denied,
    fetch_failed, not_found, url_forbidden.
    """

    id: str
    path: str
    code: str
    message: str


def bad_file(entry: Entry | Row, code: str, message: str) -> BadFile:
    """`entry` as one that cannot be used; what is not Unicode in its names is shown as \\x.. or \\u.... ."""
    return BadFile(_shown(entry.id), _shown(entry.path), code, _shown(message))


def unfit_name(entry: Entry) -> str | None:
    """Why no output can hold the entry's names, if it is so."""
    for what, text in (("id", entry.id), ("path", entry.path)):
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"Its {what} is not valid Unicode: rename the file, or name the list's --encoding."
    return None


def counted(count: int, word: str) -> str:
    """So many of what `word` names one of."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Source(Protocol):
    """Where images come from."""

    def entries(self) -> Iterator[Entry | BadFile]:
        """Every entry, in the same order each time; BadFile for one that names no image. Raises ConfigError."""

    def read(self, path: str, max_bytes: int) -> bytes:
        """The bytes of an image; of a longer one `max_bytes` + 1 at most. Called from several threads.

        Never waits for a writer. Raises ImageError, FetchError, or OSError or ValueError with the reason in a few
        words; GivenUpError if the job was asked to end and the bytes do not come.
        """


@dataclass(frozen=True)
class Shard:
    """The unit that is stored whole or not at all. `vectors` is (len(rows), dimensions), float32, of unit length."""

    number: int
    rows: list[Row]
    vectors: Vectors
    bad: list[BadFile] = field(default_factory=list)


@dataclass(frozen=True)
class Refusal:
    """A row of a shard that its store cannot hold: its place among the rows, and why, as in BadFile."""

    place: int
    code: str
    message: str


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

    def write(self, shard: Shard) -> list[Refusal]:
        """Durable when it returns, but for the rows that the store cannot hold. Writing the same shard again changes
        nothing. Raises OutputError, and then nothing of the shard is stored."""

    def finish(self) -> str:
        """Completes the output and says in a few words what it is. Raises OutputError."""

    def close(self) -> None:
        """Releases locks and connections; what is stored stays."""


class Sink(Protocol):
    """Where the shards of a job in shards go: an upsert by id and embedding_id. A shard that is begun and never
    published is begun again, from its first row, by whoever goes on; writing it twice is writing it once. Every method
    raises OutputError."""

    def begin(self, number: int) -> None:
        """Begins shard `number`, in place of one that was not published."""

    def write(self, shard: Shard) -> list[Refusal]:
        """Takes the next rows of the shard that was begun; gives those that the output cannot hold."""

    def publish(self) -> None:
        """Everything of the shard is in the output, durably, when this returns."""

    def close(self) -> None:
        """Forgets a shard that was not published, as far as that is possible; releases connections."""
