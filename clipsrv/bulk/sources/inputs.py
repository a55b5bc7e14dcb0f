"""What was asked for: files, folders, globs, lists and URLs to one stream of entries, and each entry to its bytes.

Goes to other processes and machines as it is: what it opens to read with stays behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry, bad_file
from clipsrv.bulk.sources import database, parquet, tar
from clipsrv.bulk.sources.below import objects_of
from clipsrv.bulk.sources.columns import Columns
from clipsrv.bulk.sources.database import Database
from clipsrv.bulk.sources.lists import STDIN, check_encoding, read_list
from clipsrv.bulk.sources.local import files_of, read_file, read_part
from clipsrv.bulk.sources.objects import EXTRAS
from clipsrv.bulk.sources.ranges import Ranges
from clipsrv.bulk.sources.reader import Fetching, Reader, scheme_of
from clipsrv.errors import ConfigError

_SHOWN = 3
_AHEAD = 1 << 20


def _open_part(name: str) -> str:
    """A URL without a user's name and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", name)


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Inputs:
    """What was asked for. `lists` are files of one path, or one JSON object with id and path, a line ("-": stdin).

    `null` makes NUL, not the newline, end a path of a list; `encoding` is that of lists. Ids are paths, relative to
    `relative_to` if given. `stop`, which does not travel, tells that fetches are to end: some seconds later `read`
    raises GivenUpError. `columns` are those of tables and of objects in lists; `query` is what the postgresql:// among
    the paths is asked. Raises ConfigError for an encoding that is none, a query without a database or the reverse.
    """

    paths: Sequence[str]
    lists: Sequence[str] = ()
    null: bool = False
    relative_to: str | None = None
    encoding: str | None = None
    fetching: Fetching = field(default_factory=Fetching)
    columns: Columns = field(default_factory=Columns)
    query: str | None = None
    stop: Callable[[], bool] = field(default=_never, compare=False, repr=False)
    _reader: Reader = field(init=False, compare=False, repr=False)
    _rows: parquet.Rows = field(init=False, compare=False, repr=False)
    _database: Database | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        object.__setattr__(self, "_reader", Reader(self.fetching, self.stop))
        object.__setattr__(self, "_rows", parquet.Rows(self._open))
        object.__setattr__(self, "_database", self._asked())

    def __reduce__(self) -> tuple[type[Inputs], tuple[object, ...]]:
        return Inputs, (
            self.paths,
            self.lists,
            self.null,
            self.relative_to,
            self.encoding,
            self.fetching,
            self.columns,
            self.query,
        )

    def entries(self) -> Iterator[Entry | BadFile]:
        """Raises ConfigError for a path that is not there, a glob without a match or a list that cannot be read."""
        lists = [*self.lists, *(STDIN for path in self.paths if path == STDIN)]
        if lists.count(STDIN) > 1:
            raise ConfigError("Standard input can be read only once: give - in one place.")
        keys = (self.columns.id or "id", self.columns.image or "path")
        for path in self.paths:
            if path != STDIN:
                yield from self._named(path)
        for name in lists:
            for item in read_list(name, null=self.null, encoding=self.encoding, columns=keys):
                yield Entry(self._id(item), item) if isinstance(item, str) else item

    @property
    def fetches(self) -> bool:
        """Whether images may lie elsewhere: neither lists nor tables are read to tell."""
        tables = (STDIN, parquet.SUFFIX)
        elsewhere = bool(self.lists or self.query)
        return elsewhere or any(scheme_of(path) or path.lower().endswith(tables) for path in self.paths)

    @property
    def in_words(self) -> str:
        """What was asked for, the first of it if it is much."""
        named = ["standard input" if name == STDIN else repr(_open_part(name)) for name in (*self.paths, *self.lists)]
        return ", ".join(named[:_SHOWN]) + (f" and {len(named) - _SHOWN:,} more" if len(named) > _SHOWN else "")

    def read(self, path: str, max_bytes: int) -> bytes:
        """As records.Source has it. Raises UnicodeEncodeError for a path that is no file's name."""
        if tar.is_member(path):
            return tar.read_member(path, max_bytes, self._part)
        if parquet.is_row(path):
            return self._rows.read(path, max_bytes)
        if database.is_row(path):
            return self._reader.insist(partial(self._rows_of_query().fetch, path, max_bytes))
        return read_file(path, max_bytes) if scheme_of(path) is None else self._reader.read(path, max_bytes)

    def close(self) -> None:
        """Ends what was opened to read with; it is opened again if need be."""
        self._reader.close()
        if self._database is not None:
            self._database.close()

    def _asked(self) -> Database | None:
        urls = [path for path in self.paths if path.startswith(database.SCHEMES)]
        if len(urls) > 1 or bool(urls) != bool(self.query):
            raise ConfigError("--query and a postgresql://... to ask go together, one of each.")
        return Database(urls[0], self.query, self.columns, self.fetching.seconds) if self.query else None

    def _rows_of_query(self) -> Database:
        if self._database is None:
            raise FetchError("fetch_failed", "No database was named in which this row would be (--query).")
        return self._database

    def _named(self, path: str) -> Iterator[Entry | BadFile]:
        if path.startswith(database.SCHEMES):
            yield from self._rows_of_query().rows()
            return
        scheme = scheme_of(path)
        if scheme in EXTRAS:
            found = (Entry(self._id(one.url), one.url, one.size, one.etag) for one in objects_of(path, self._reader))
        else:
            found = (Entry(self._id(name), name) for name in ((path,) if scheme else files_of(path)))
        for entry in found:
            if entry.path.lower().endswith(tar.SUFFIX):
                yield from self._in_tar(entry)
            elif entry.path.lower().endswith(parquet.SUFFIX):
                yield from parquet.rows_of(entry, partial(self._open, entry.path), self.columns)
            else:
                yield entry

    def _in_tar(self, entry: Entry) -> Iterator[Entry | BadFile]:
        try:
            for one in tar.images_in(partial(self._part, entry.path)):
                yield Entry(f"{entry.id}/{one.key}", one.path(entry.path), one.size)
        except FetchError as error:
            yield bad_file(entry, error.code, error.message)
        except OSError as error:
            yield bad_file(entry, "unreadable_file", f"The file cannot be read: {error.strerror}.")

    def _open(self, path: str) -> BinaryIO:
        """A file to seek in, which holds nothing open. Raises OSError, FetchError, ConfigError."""
        if scheme_of(path) is None:
            size: int | None = os.stat(path).st_size
        else:
            size = found.size if (found := self._reader.describe(path)) else None
        return cast("BinaryIO", Ranges.buffered(partial(self._part, path), _AHEAD, size))

    def _part(self, path: str, start: int, length: int) -> bytes:
        return read_part(path, start, length) if scheme_of(path) is None else self._reader.part(path, start, length)

    def _id(self, path: str) -> str:
        base = self.relative_to
        if scheme_of(path):
            return path if base is None else path.removeprefix(f"{base.rstrip('/')}/")
        return Path(path if base is None or scheme_of(base) else os.path.relpath(path, base)).as_posix()
