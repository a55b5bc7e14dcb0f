"""What of a job is done: a file for each shard, and its images that cannot be used in a table of all.

WORK/done/000000.json         there once everything of the shard is in the output
WORK/failures/000000.parquet  id, path, code, message of a shard's bad images: the folder is one table
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsrv.bulk.records import BadFile
from clipsrv.bulk.work.folder import Folder

FAILURES = "failures"
_SCHEMA = pa.schema({item.name: pa.string() for item in fields(BadFile)})


class Marks:
    """The marks in the folder of a job. Every method raises OutputError."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def done(self) -> set[int]:
        """The shards that are done."""
        stems = (name.removesuffix(".json") for name in self._folder.names("done"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write(self, number: int, bad: Sequence[BadFile], counts: Mapping[str, Any]) -> None:
        """Notes that a shard is done; its bad images are written before that."""
        name = f"{FAILURES}/{number:06d}.parquet"
        if bad:
            columns = zip(*map(astuple, bad), strict=True)
            with self._folder.draft(name) as draft:
                pq.write_table(pa.table([list(column) for column in columns], schema=_SCHEMA), draft.file)
                draft.publish()
        else:
            self._folder.remove(name)
        self._folder.write(f"done/{number:06d}.json", json.dumps(dict(counts)).encode() + b"\n")

    def failures(self) -> str:
        """Where the table of bad images is."""
        return f"{self._folder.url}/{FAILURES}"
