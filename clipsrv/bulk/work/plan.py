"""The manifest of work: the list of a job, written once as Parquet in shards. A shard is the unit of progress.

WORK/index.json              how many entries and shards there are, and of what; there once the list is whole
WORK/inputs/000000.parquet   id, uri, size, etag; of an entry that names no image code and message too
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import BadFile, Entry, bad_file, unfit_name
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.ids import Ids, by_shard
from clipsrv.errors import ConfigError

FORMAT = 1
INDEX = "index.json"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "uri": pa.string(),
        "size": pa.int64(),
        "etag": pa.string(),
        "code": pa.string(),
        "message": pa.string(),
        "row": pa.int64(),  # its place in the whole list
    }
)
#: Rows held while a shard is written, and of a row group.
_GROUP = 8_192


@dataclass(frozen=True)
class Plan:
    """Entries in `shards` of `rows` each, but for the last and for those in which an image was named again; `short` are
    the sizes of such. `facts` is what they are of, `mark` what no other plan has."""

    folder: Folder
    shards: int
    rows: int
    short: Mapping[int, int]
    facts: Mapping[str, Any]
    mark: str

    @property
    def count(self) -> int:
        """How many entries there are in all."""
        return self.rows * (self.shards - len(self.short)) + sum(self.short.values())

    def size(self, number: int) -> int:
        """How many entries a shard has."""
        return self.short.get(number, self.rows)

    def shard(self, number: int) -> Listed:
        """The entries of a shard."""
        return Listed(self.folder, number, self.size(number))


@dataclass(frozen=True)
class Listed:
    """The entries of one shard, which are read as they are asked for."""

    folder: Folder
    number: int
    count: int

    def entries(self, start: int = 0, count: int | None = None) -> Iterator[Entry | BadFile]:
        """Entries from place `start` on, or `count` of them. Raises OutputError if it is not what was planned."""
        name = inputs(self.number)
        end = self.count if count is None else start + count
        with self.folder.open(name) as file:
            try:
                for batch in _batches(pq.ParquetFile(file), self.count, start, end):
                    yield from entries_of(batch)
            except (pa.ArrowException, OSError) as error:
                raise OutputError(f"Cannot read {self.folder.url}/{name}: {error}.") from None


def inputs(number: int) -> str:
    """The name of a shard's list."""
    return f"inputs/{number:06d}.parquet"


def read_plan(folder: Folder) -> Plan | None:
    """The plan in a folder; None if there is none yet. Raises OutputError."""
    written = folder.read(INDEX)
    if written is None:
        return None
    try:
        index = json.loads(written)
        if index["format"] != FORMAT:
            raise OutputError(f"{folder.url} was written by another version of clipsrv: name another --work.")
        short = {int(number): int(size) for number, size in index["short"].items()}
        shards, rows = int(index["shards"]), int(index["rows_per_shard"])
        return Plan(folder, shards, rows, short, dict(index["facts"]), str(index["mark"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(f"{folder.url}/{INDEX} is damaged: name another --work.") from None


def write_plan(
    folder: Folder, entries: Iterable[Entry | BadFile], rows: int, facts: Mapping[str, Any], named: str
) -> Plan:
    """Writes the list of `entries` down in shards of `rows`, each id once: of several with one id the first counts, and
    the others are bad entries unless they name the same path. Memory does not grow with the list.

    Raises ConfigError if there is none that can be used, in what was `named`; OutputError.
    """
    with closing(Ids()) as ids:
        source, count = _checked(entries, ids), 0
        while written := _write_shard(folder, count // rows, count, islice(source, rows)):
            count += written
            if written < rows:
                break
        repeated = ids.repeated()
    shards = -(-count // rows)
    short = {shards - 1: count - rows * (shards - 1)} if count % rows else {}
    for number, those in by_shard(repeated, rows):
        size = _settle(folder, number, those)
        short = {**short, number: size} if size < rows else short
    plan = Plan(folder, shards, rows, short, dict(facts), uuid.uuid4().hex)
    if not any(isinstance(entry, Entry) for number in range(shards) for entry in plan.shard(number).entries()):
        first = next((entry for number in range(shards) for entry in plan.shard(number).entries()), None)
        raise ConfigError(
            f"{first.path}: {first.message}." if isinstance(first, BadFile) else f"No image found in {named}."
        )
    index = {"format": FORMAT, "mark": plan.mark, "count": plan.count, "rows_per_shard": rows, "shards": shards}
    folder.write(INDEX, json.dumps({**index, "short": short, "facts": plan.facts}, indent=2).encode() + b"\n")
    return plan


def _batches(table: Any, count: int, start: int, end: int) -> Iterator[Any]:
    """The rows from `start` to `end` of a file; only their groups are read. Raises OSError if it has not `count`."""
    if table.metadata.num_rows != count:
        raise OSError(f"it holds {table.metadata.num_rows:,} entries and not {count:,}")
    first = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if first < end and first + rows > start:
            place = first
            for batch in table.iter_batches(batch_size=_GROUP, row_groups=[group]):
                low, high = max(start - place, 0), min(end - place, batch.num_rows)
                if low < high:
                    yield batch.slice(low, high - low)
                place += batch.num_rows
        first += rows


def entries_of(batch: Any) -> Iterator[Entry | BadFile]:
    """The entries of rows in SCHEMA."""
    names = ("id", "uri", "size", "etag", "code", "message")
    for identity, uri, size, etag, code, message in zip(
        *(batch.column(name).to_pylist() for name in names), strict=True
    ):
        yield Entry(identity, uri, size, etag) if code is None else BadFile(identity, uri, code, message)


def _checked(entries: Iterable[Entry | BadFile], ids: Ids) -> Iterator[Entry | BadFile]:
    """Entries that a table can hold, their ids noted."""
    for row, entry in enumerate(entries):
        if isinstance(entry, Entry):
            if unfit := unfit_name(entry):
                entry = bad_file(entry, "invalid_name", unfit)
            else:
                ids.add(entry.id, entry.path, row)
        yield entry


def _settle(folder: Folder, number: int, repeated: NDArray[np.void]) -> int:
    """Takes entries that repeat others of the same path out of a shard, and makes the other repeated ones bad. Gives
    the number of entries left."""
    with folder.open(inputs(number)) as file:
        table = pq.read_table(file, schema=SCHEMA)
    codes, messages = (table.column(name).to_pylist() for name in ("code", "message"))
    keep = np.ones(table.num_rows, bool)
    for row, first, same in repeated.tolist():
        keep[row] = not same
        codes[row] = "duplicate_id"
        messages[row] = f"This id stands for entry {first + 1:,} of the list already, which comes first."
    for name, values in (("code", codes), ("message", messages)):
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), pa.array(values, pa.string()))
    table = table.filter(pa.array(keep))
    with folder.draft(inputs(number)) as draft:
        pq.write_table(table, draft.file, compression="zstd", row_group_size=_GROUP)
        draft.publish()
    return int(keep.sum())


def _write_shard(folder: Folder, number: int, first: int, entries: Iterator[Entry | BadFile]) -> int:
    """How many there were; without any there is no file."""
    group = list(islice(entries, _GROUP))
    written = 0
    if group:
        with folder.draft(inputs(number)) as draft, pq.ParquetWriter(draft.file, SCHEMA, compression="zstd") as out:
            while group:
                out.write_table(_table(group, first + written))
                written += len(group)
                group = list(islice(entries, _GROUP))
            out.close()
            draft.publish()
    return written


def _table(entries: list[Entry | BadFile], first: int) -> Any:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for row, entry in enumerate(entries, first):
        values: tuple[Any, ...] = (entry.id, entry.path)
        if isinstance(entry, BadFile):
            values += (None, None, entry.code, entry.message, row)
        else:
            values += (entry.size, entry.etag, None, None, row)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return pa.table(columns, schema=SCHEMA)
