"""The formats of labels: CSV, a row for each label of an image, or JSON lines, an object for each image."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from clipsrv.bulk.records import Facts
from clipsrv.bulk.stores.outputs import Shards, Writer
from clipsrv.bulk.stores.parts import write_whole
from clipsrv.errors import ConfigError
from clipsrv.models.scoring import LabelScore
from clipsrv.runtime.vectors import Vectors

#: The labels of each image, best first, by the vectors (n, dimensions) of a shard.
Rate = Callable[[Vectors], Sequence[Sequence[LabelScore]]]

COLUMNS = ("id", "path", "rank", "label", "score", "similarity")


def tag_writer_for(path: Path) -> Callable[[Rate], Writer]:
    """The writer for a file name, once it is known how images are rated. Raises ConfigError for another format."""
    if (make := _WRITERS.get(path.suffix.lower())) is None:
        raise ConfigError(f"--out {path}: its name must end in {' or '.join(_WRITERS)}.")
    return make


def _csv(rate: Rate) -> Writer:
    def write(path: Path, shards: Shards, rows: int, facts: Facts) -> None:
        def write_rows(file: IO[bytes]) -> None:
            text = io.TextIOWrapper(file, "utf-8", newline="")
            table = csv.writer(text)
            table.writerow(COLUMNS)
            for shard in shards():
                for row, found in zip(shard.rows, rate(shard.vectors), strict=True):
                    for rank, one in enumerate(found, 1):
                        table.writerow((row.id, row.path, rank, one.label, *_numbers(one)))
            text.detach()  # flushed, and left open

        write_whole(path, write_rows)

    return write


def _jsonl(rate: Rate) -> Writer:
    def write(path: Path, shards: Shards, rows: int, facts: Facts) -> None:
        def write_rows(file: IO[bytes]) -> None:
            for shard in shards():
                for row, found in zip(shard.rows, rate(shard.vectors), strict=True):
                    labels = [
                        dict(zip(("label", "score", "similarity"), (one.label, *_numbers(one)), strict=True))
                        for one in found
                    ]
                    record = {"id": row.id, "path": row.path, "sha256": row.sha256, "labels": labels}
                    file.write(orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

        write_whole(path, write_rows)

    return write


def _numbers(one: LabelScore) -> tuple[np.float32, np.float32]:
    """Score and similarity, which are written with as few digits as tell the float32 that vectors are."""
    return np.float32(one.score), np.float32(one.similarity)


_WRITERS: dict[str, Callable[[Rate], Writer]] = {".csv": _csv, ".jsonl": _jsonl}
