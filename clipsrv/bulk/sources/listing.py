"""The job's list of entries, written down once: the same order at every restart, and no list in memory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clipsrv.bulk.records import Entry
from clipsrv.errors import ConfigError


@dataclass(frozen=True)
class Listing:
    """Entries in a file, one JSON pair of id and path a line. `sha256` is of that file."""

    file: Path
    count: int
    sha256: str

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Entries from place `start` on."""
        with self.file.open(encoding="ascii") as lines:
            for line in islice(lines, start, None):
                yield Entry(*json.loads(line))


def write_listing(entries: Iterable[Entry], file: Path) -> Listing:
    """Writes `entries` to `file`, each id once. Raises ConfigError if one id stands for two paths, or none is there."""
    digest, count = hashlib.sha256(), 0
    paths = sqlite3.connect("")  # a private database that moves to disk as it grows, gone when closed
    try:
        paths.execute("CREATE TABLE paths (id BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")
        with file.open("wb") as out:
            for entry in entries:
                key, path = _bytes(entry.id), _bytes(entry.path)
                if not paths.execute("INSERT OR IGNORE INTO paths VALUES (?, ?)", (key, path)).rowcount:
                    (other,) = paths.execute("SELECT path FROM paths WHERE id = ?", (key,)).fetchone()
                    if other != path:
                        raise ConfigError(f"The id {entry.id!r} stands for {other.decode()!r} and {entry.path!r}.")
                    continue
                line = json.dumps([entry.id, entry.path]).encode() + b"\n"
                out.write(line)
                digest.update(line)
                count += 1
    finally:
        paths.close()
    if not count:
        raise ConfigError("No image found in what was named.")
    return Listing(file, count, digest.hexdigest())


def read_listing(file: Path) -> Listing:
    """The listing in a file that `write_listing` made."""
    digest, count = hashlib.sha256(), 0
    with file.open("rb") as lines:
        for line in lines:
            digest.update(line)
            count += 1
    return Listing(file, count, digest.hexdigest())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
