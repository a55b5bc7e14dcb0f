"""The store that ends in a file: shards in a folder beside it while the job runs, one file when it is done."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import BadFile, Facts, Refusal, Row, Shard, counted
from clipsrv.bulk.stores.outputs import Writer
from clipsrv.bulk.stores.parts import Parts, read_facts, reporting, write_whole
from clipsrv.bulk.stores.seen import Seen
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.facts import beside

#: Characters shown of a fact.
_LONGEST = 80


class FileStore:
    """A job's shards in `parts`, and the output `path` made of them by `writer`."""

    def __init__(self, path: Path, parts: Parts, writer: Writer, facts: Facts, what: str = "vector") -> None:
        """`parts` must hold this job already (see `begin_or_continue`); `what` a row of the output is called.
        Raises OutputError."""
        self._path, self._parts, self._writer, self._facts = path, parts, writer, facts
        self._what = what
        self._seen = Seen()
        self._vectors = lru_cache(maxsize=32)(parts.vectors)
        self._ends: list[int] = []  # how many rows the shards up to and including each one hold
        for number in range(parts.count(facts["dimensions"])):
            self._note(parts.read_rows(number)[0])

    @property
    def shards_done(self) -> int:
        return len(self._ends)

    def bad_before(self) -> Iterator[BadFile]:
        for number in range(self.shards_done):
            yield from self._parts.read_rows(number)[1]

    def sha256_of(self, entry_id: str) -> str | None:
        return None  # what is stored comes before everything that is still to do

    def holds(self, sha256: str) -> bool:
        return self._seen.first_place(sha256) is not None

    def vector(self, sha256: str) -> Vectors | None:
        place = self._seen.first_place(sha256)
        if not isinstance(place, int):
            return None
        number = bisect_right(self._ends, place)
        first = self._ends[number - 1] if number else 0
        vector: Vectors = self._vectors(number)[place - first]
        return vector

    def write(self, shard: Shard) -> list[Refusal]:
        self._parts.write(shard)
        self._note(shard.rows)
        return []

    def finish(self) -> str:
        """Makes the output and removes the parts. A kill between the two costs nothing but doing it again."""
        rows = self._ends[-1] if self._ends else 0
        with reporting(self._path):
            self._writer(self._path, lambda: map(self._parts.read, range(self.shards_done)), rows, self._facts)
            manifest = json.dumps({**self._facts, "rows": rows}, indent=2).encode() + b"\n"
            write_whole(beside(self._path, "manifest.json"), lambda file: file.write(manifest))
        self._parts.discard()
        return f"{counted(rows, self._what)} in {self._path}"

    def close(self) -> None:
        self._seen.close()
        self._parts.close()

    def _note(self, rows: list[Row]) -> None:
        first = self._ends[-1] if self._ends else 0
        self._seen.add((first + position, row.sha256) for position, row in enumerate(rows))
        self._ends.append(first + len(rows))


def begin_or_continue(path: Path, parts: Parts, facts: Facts, *, restart: bool) -> bool:
    """Makes `parts` hold the job of `facts`, whose list is its new list, begun before or now.

    False if `path` is already this job's finished output. Raises OutputError if the parts or the output are another
    job's and not `restart`.
    """
    if restart:
        parts.discard()
    elif (begun := parts.facts()) is not None:
        cure = "go on with the list as it was taken then (--as-listed)"
        _refuse_other(f"The unfinished job in {parts.folder}", begun, facts, cure)
        return True
    elif (finished := read_facts(beside(path, "manifest.json"))) is not None and path.exists():
        cure = "keep what grows in Lance or PostgreSQL (--out x.lance, postgresql://...), which embed only what is new"
        _refuse_other(str(path), finished, facts, cure)
        return False
    elif path.exists():
        raise OutputError(f"{path} is there already and has no manifest of a job. Name another, or use --restart.")
    parts.begin(facts)
    return True


def _refuse_other(what: str, before: Facts, now: Facts, cure: str) -> None:
    """`cure` is for a list that differs and nothing else."""
    differences = [name for name in now if before.get(name) != now[name]]
    if differences:
        said = "; ".join(f"{name} was {_short(before.get(name))}, is {_short(now[name])}" for name in differences)
        first = cure if differences == ["inputs"] else "run it as it was begun"
        raise OutputError(
            f"{what} was made otherwise: {said}. Either {first}, or name another --out, or begin again (--restart)."
        )


def _short(value: object) -> str:
    if isinstance(value, dict) and "count" in value:
        return f"{value['count']:,} images (list {str(value.get('sha256'))[:8]})"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
