"""The store that is a Lance dataset: it grows, and is its own journal, since what is in it is done.

A shard is one commit, which a kill leaves made or not made. Everything that is asked of Lance for writing is here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import orjson
import pyarrow as pa

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import Facts, Refusal, Shard, counted
from clipsrv.bulk.stores.arrow import schema_of, table_of
from clipsrv.bulk.stores.parts import hold
from clipsrv.bulk.stores.seen import Growing
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.facts import KEY

_LOCK = "clipsrv.lock"
#: What Lance itself puts into the folder of a dataset.
_LANCES = ("data", "_")
#: Shards after which their pieces are joined, and the rows of a joined piece: each is written anew at most twice.
_SHARDS_APART, _ROWS = 64, 16_384
#: So long old versions are kept, for who reads one.
_KEPT = timedelta(minutes=10)
#: The kind of index: near vectors together, each number in a byte.
_ANN = "IVF_SQ"
#: Ids taken away in one commit.
_AT_ONCE = 1000


class LanceStore(Growing):
    """Rows of one dataset on this machine, all of one embedding_id. Only one process at a time can hold it."""

    def __init__(
        self, path: Path, facts: Facts, listed: Iterable[str] | None, *, prune: bool = False, ann: bool = False
    ) -> None:
        """Makes the folder if need be, and reads what is in the dataset; `facts` are kept beside its rows. If ids are
        `listed`, `finish` counts the rows of all that are not among them, and with `prune` takes them away; with `ann`
        it makes the index for approximate search, or brings it up to date.

        Raises OutputError, also if the dataset is nobody's of clipsrv or of another embedding_id.
        """
        super().__init__()
        self._path, self._schema, self._ann = path, schema_of(facts), ann
        self._listed, self._prunes = listed, prune
        self._written, self._synced = 0, set[Path]()
        self._lock = hold(path, _LOCK)
        try:
            with reporting(self._path):
                self._dataset: Any = _opened(path)
                if foreign := [name for name in os.listdir(path) if not name.startswith((_LOCK, *_LANCES))]:
                    raise OutputError(f"{path} holds {foreign[0]}, which is nothing of Lance. Name another.")
                if self._dataset is not None:
                    refuse_other(self._dataset, self._path, facts)
                    self._read()
        except BaseException:
            self.close()
            raise

    def vector(self, sha256: str) -> Vectors | None:
        if not self.holds(sha256):
            return None
        with reporting(self._path):
            found = self._dataset.to_table(columns=["embedding"], filter=f"sha256 = '{sha256}'", limit=1)
        return np.array(found.column("embedding")[0].as_py(), np.float32) if found.num_rows else None

    def write(self, shard: Shard) -> list[Refusal]:
        if not shard.rows:
            return []
        table = table_of([shard], self._schema)
        with reporting(self._path):
            if self._dataset is None:
                self._dataset = lance.write_dataset(table, str(self._path), mode="create")
            elif any(self._seen.sha256_at(row.id) is not None for row in shard.rows):
                merge = self._dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(table)
            else:
                self._dataset = lance.write_dataset(table, self._dataset, mode="append")
            self._sync()
        self._seen.add((row.id, row.sha256) for row in shard.rows)
        self._written += 1
        if self._written % _SHARDS_APART == 0:
            self._tidy()
        return []

    def finish(self) -> str:
        if self._dataset is None:
            return f"0 rows in {self._path}"
        others = self._count_others_or_prune()
        self._tidy()
        with reporting(self._path):
            rows = self._dataset.count_rows()
            if self._ann and rows:
                self._index(rows)
        return f"{counted(rows, 'row')} in {self._path}{others}"

    def close(self) -> None:
        self._seen.close()
        self._lock.close()

    def _read(self) -> None:
        for batch in self._dataset.to_batches(columns=["id", "sha256"]):
            names, hashes = (batch.column(column).to_pylist() for column in ("id", "sha256"))
            self._seen.add(zip(names, hashes, strict=True))

    def _count_others_or_prune(self) -> str:
        if self._listed is None:
            return ""
        if not self._prunes:
            count = self._seen.count_others(self._listed)
            return (
                f", {count:,} of no image named (--prune takes {'it' if count == 1 else 'them'} away)" if count else ""
            )
        gone = self._seen.others(self._listed)
        for at in range(0, len(gone), _AT_ONCE):
            names = ", ".join("'" + str(name).replace("'", "''") + "'" for name in gone[at : at + _AT_ONCE])
            with reporting(self._path):
                self._dataset.delete(f"id IN ({names})")
        return f" ({len(gone):,} taken away)" if gone else ""

    def _tidy(self) -> None:
        """Joins small pieces, and forgets old versions and what a killed process left of one that was never made: their
        number does not grow with the shards that were ever written."""
        with reporting(self._path):
            self._dataset.optimize.compact_files(target_rows_per_fragment=_ROWS)
            self._dataset.cleanup_old_versions(_KEPT, delete_unverified=True)
            self._sync()

    def _index(self, rows: int) -> None:
        """Rows that an index does not know are looked through one by one, so it is right without this, and slower."""
        if self._dataset.describe_indices():
            self._dataset.optimize.optimize_indices()
        else:
            parts = max(1, round(rows**0.5))
            self._dataset.create_index("embedding", _ANN, metric="cosine", num_partitions=parts)

    def _sync(self) -> None:
        """Has the system put on the disk what it was given: Lance leaves that to it."""
        folders = [self._path / name for name in ("data", "_deletions", "_versions")]
        there = {folder / name for folder in folders if folder.is_dir() for name in os.listdir(folder)}
        for path in sorted(there - self._synced) + [folder for folder in folders if folder.is_dir()]:
            with suppress(FileNotFoundError, PermissionError):  # taken away meanwhile; Windows syncs no folder
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        self._synced = there


def _opened(path: Path) -> Any:
    """The dataset, None if there is none yet. Raises as Lance does."""
    versions = path / "_versions"
    if not versions.is_dir() or not any(name.endswith(".manifest") for name in os.listdir(versions)):
        return None
    return lance.dataset(str(path))


def refuse_other(dataset: Any, path: Path | str, facts: Facts) -> None:
    """Raises OutputError unless the dataset at `path` is clipsrv's, of the embedding_id of `facts`."""
    try:
        stored = orjson.loads((dataset.schema.metadata or {})[KEY])
        fits = dataset.schema.equals(schema_of(stored))
    except (KeyError, ValueError, TypeError):
        fits = False
    if not fits:
        raise OutputError(f"{path} is no output of embed. Name another.")
    if stored.get("embedding_id") != facts["embedding_id"]:
        raise OutputError(
            f"{path} holds vectors of embedding_id {stored.get('embedding_id')}, made by "
            f"{stored.get('model')}; this job makes {facts['embedding_id']}. They cannot be compared: name another "
            "--out."
        )


@contextmanager
def reporting(path: Path | str) -> Iterator[None]:
    """Turns what Lance refuses into OutputError about the dataset at `path`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        reason = str(error).split(", /", 1)[0].split("\n", 1)[0]  # behind it stands a place in Lance's own source
        raise OutputError(f"Cannot use {path}: {reason}.") from None
