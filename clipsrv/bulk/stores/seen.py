"""Which content is stored where: a table of places and sha256 on disk, so that memory stays flat. And what a store that
grows answers out of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from clipsrv.bulk.records import BadFile

#: Where a row is: its number in the output, or its id in a database.
Place = int | str


class Seen:
    """Private to this process and gone with it; a store fills it again at each start. Safe for several threads."""

    def __init__(self) -> None:
        # An empty name makes a database that moves to disk as it grows and is deleted when closed.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (place PRIMARY KEY, sha256 BLOB) WITHOUT ROWID")
        self._database.execute("CREATE INDEX by_sha256 ON seen (sha256)")

    def add(self, rows: Iterable[tuple[Place, str]]) -> None:
        """Notes what lies where, in place of what lay there before."""
        values = ((place, bytes.fromhex(sha256)) for place, sha256 in rows)
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", values)
            self._database.execute("COMMIT")

    def first_place(self, sha256: str) -> Place | None:
        """The smallest place where this content lies."""
        place: Place | None = self._one("SELECT min(place) FROM seen WHERE sha256 = ?", bytes.fromhex(sha256))
        return place

    def sha256_at(self, place: Place) -> str | None:
        found = self._one("SELECT sha256 FROM seen WHERE place = ?", place)
        return None if found is None else found.hex()

    def others(self, places: Iterable[Place]) -> list[Place]:
        """The places noted that are not among these."""
        return [place for (place,) in self._outside("place", places)]

    def count_others(self, places: Iterable[Place]) -> int:
        """How many places noted are not among these."""
        ((count,),) = self._outside("count(*)", places)
        return int(count)

    def _outside(self, wanted: str, places: Iterable[Place]) -> list[Any]:
        with self._lock:
            self._database.execute("CREATE TABLE among (place PRIMARY KEY) WITHOUT ROWID")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO among VALUES (?)", ((place,) for place in places))
            self._database.execute("COMMIT")
            query = f"SELECT {wanted} FROM seen WHERE place NOT IN (SELECT place FROM among)"
            found = self._database.execute(query).fetchall()
            self._database.execute("DROP TABLE among")
        return found

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _one(self, query: str, value: Place | bytes) -> Any:
        with self._lock:
            found = self._database.execute(query, (value,)).fetchone()
        return found[0] if found else None


class Growing:
    """Of a Store that says itself what is done: the part that `_seen` answers, which the store fills by its ids."""

    shards_done = 0

    def __init__(self) -> None:
        self._seen = Seen()

    def bad_before(self) -> Iterator[BadFile]:
        return iter(())

    def sha256_of(self, entry_id: str) -> str | None:
        return self._seen.sha256_at(entry_id)

    def holds(self, sha256: str) -> bool:
        return self._seen.first_place(sha256) is not None
