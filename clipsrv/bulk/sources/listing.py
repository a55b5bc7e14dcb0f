"""The job's list of entries, written down once: the same order at every restart, and no list in memory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

from clipsrv.bulk.records import BadFile, Entry, bad_file
from clipsrv.errors import ConfigError


@dataclass(frozen=True)
class Listing:
    """Entries in a file, one JSON array a line: id and path; of a bad one code and message too, and [size, etag] as a
    third of one of which either is known. `sha256` is its own."""

    file: Path
    count: int
    sha256: str

    def entries(self, start: int = 0) -> Iterator[Entry | BadFile]:
        """Entries from place `start` on."""
        with self.file.open(encoding="ascii") as lines:
            for line in islice(lines, start, None):
                fields = json.loads(line)
                yield BadFile(*fields) if len(fields) == 4 else Entry(*fields[:2], *(fields[2] if fields[2:] else ()))


def write_listing(entries: Iterable[Entry | BadFile], file: Path, named: str = "what was named") -> Listing:
    """Writes `entries` to `file`, each id once: of several with one id the first counts. The others are bad entries,
    unless they name the same path. Raises ConfigError if there is none that can be used, in what was `named`."""
    digest, count, useless = hashlib.sha256(), 0, ""
    with closing(_Paths()) as paths, file.open("wb") as out:
        for entry in entries:
            if isinstance(entry, Entry) and (first := paths.first(entry)) is not None:
                if first == entry.path:
                    continue
                message = f"This id stands for {first} already, which comes first."
                entry = bad_file(entry, "duplicate_id", message)
            if isinstance(entry, BadFile):
                useless = useless or f"{entry.path}: {entry.message}."
            line = json.dumps(_fields(entry)).encode() + b"\n"
            out.write(line)
            digest.update(line)
            count += 1
        if not paths.count:
            raise ConfigError(useless or f"No image found in {named}.")
    return Listing(file, count, digest.hexdigest())


def _fields(entry: Entry | BadFile) -> list[object]:
    if isinstance(entry, BadFile):
        return list(astuple(entry))
    known = entry.size is not None or entry.etag is not None
    return [entry.id, entry.path, *([[entry.size, entry.etag]] if known else [])]


def read_listing(file: Path) -> Listing:
    """The listing in a file that `write_listing` made."""
    digest, count = hashlib.sha256(), 0
    with file.open("rb") as lines:
        for line in lines:
            digest.update(line)
            count += 1
    return Listing(file, count, digest.hexdigest())


class _Paths:
    """Which path each id stands for, in a private database that moves to disk as it grows and is gone when closed."""

    def __init__(self) -> None:
        self.count = 0
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE paths (id BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")

    def first(self, entry: Entry) -> str | None:
        """The path of an earlier entry with this id; None, and this one is noted, if there was none."""
        key, path = (text.encode("utf-8", "surrogatepass") for text in (entry.id, entry.path))
        if self._database.execute("INSERT OR IGNORE INTO paths VALUES (?, ?)", (key, path)).rowcount:
            self.count += 1
            return None
        (first,) = self._database.execute("SELECT path FROM paths WHERE id = ?", (key,)).fetchone()
        return str(first, "utf-8", "surrogatepass")

    def close(self) -> None:
        self._database.close()
