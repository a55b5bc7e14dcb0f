"""The formats a finished job can have: NumPy with ids beside it, JSON lines, Parquet. Shards in, one whole file out.

Each writer sees one shard at a time and makes its file appear only when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from clipsrv.bulk.records import Facts, Shard
from clipsrv.bulk.stores.arrow import schema_of, table_of
from clipsrv.bulk.stores.parts import write_whole
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.search.facts import beside

#: Shards in their order, from the first, each time it is called.
Shards = Callable[[], Iterable[Shard]]
Writer = Callable[[Path, Shards, int, Facts], None]

#: Rows of a Parquet row group: some 32 MB of vectors, the size readers like.
_ROW_GROUP = 16_384


def writer_for(path: Path) -> Writer:
    """The writer for a file name. Raises ConfigError for a format that is not known, or whose library is not there."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ConfigError(
            f"--out {path}: its name must end in {', '.join(_WRITERS)} or .lance, or it must be postgresql://..."
        )
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(f"Parquet needs pyarrow: {how_to_install('parquet')}") from None
    return _WRITERS[suffix]


def write_npy(path: Path, shards: Shards, rows: int, facts: Facts) -> None:
    """(rows, dimensions) float32 in `path`; in FILE.ids.jsonl one object a row, in the same order."""

    def write_ids(file: IO[bytes]) -> None:
        for shard in shards():
            file.writelines(orjson.dumps(row) + b"\n" for row in shard.rows)

    def write_vectors(file: IO[bytes]) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, facts["dimensions"])}
        np.lib.format.write_array_header_1_0(file, header)
        for shard in shards():
            file.write(np.ascontiguousarray(shard.vectors, "<f4").data)

    write_whole(beside(path, "ids.jsonl"), write_ids)
    write_whole(path, write_vectors)


def write_jsonl(path: Path, shards: Shards, rows: int, facts: Facts) -> None:
    """One object a row: id, path, sha256 and embedding, whose digits give the float32 back exactly."""

    def write(file: IO[bytes]) -> None:
        for shard in shards():
            for row, vector in zip(shard.rows, shard.vectors, strict=True):
                record = {"id": row.id, "path": row.path, "sha256": row.sha256, "embedding": vector}
                file.write(orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    write_whole(path, write)


def write_parquet(path: Path, shards: Shards, rows: int, facts: Facts) -> None:
    """Columns id, path, sha256 and embedding (list of a fixed number of float32); `facts` under the key clipsrv."""
    import pyarrow.parquet as pq

    schema = schema_of(facts)

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(file, schema) as out:
            for group in _grouped(shards(), _ROW_GROUP):
                out.write_table(table_of(group, schema), row_group_size=_ROW_GROUP)

    write_whole(path, write)


_WRITERS: dict[str, Writer] = {".npy": write_npy, ".jsonl": write_jsonl, ".parquet": write_parquet}


def _grouped(shards: Iterable[Shard], rows: int) -> Iterator[list[Shard]]:
    """Shards in groups of about `rows` rows."""
    group: list[Shard] = []
    for shard in shards:
        group.append(shard)
        if sum(len(one.rows) for one in group) >= rows:
            yield group
            group = []
    if group:
        yield group
