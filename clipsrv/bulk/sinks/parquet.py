"""The sink that is a folder of Parquet files, a file for each shard, on this machine or in an object store.

A file is written under a name of its own, and gets the shard's when it is whole.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pyarrow.parquet as pq

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import Facts, Refusal, Shard
from clipsrv.bulk.stores.arrow import schema_of, table_of
from clipsrv.bulk.work.folder import Draft, Folder

#: Rows of a row group: some 32 MB of vectors, the size readers like.
_ROW_GROUP = 16_384
#: Whose output the folder is; readers of a folder pass over names that begin so.
_JOB = "_clipsrv.json"


class ParquetSink:
    """Files shard-000000.parquet and so on: id, path, sha256 and embedding; `facts` under the key clipsrv."""

    def __init__(self, url: str, facts: Facts, mark: str) -> None:
        """`mark` is that of the plan whose shards they are. Raises OutputError for a folder that holds another's."""
        self._folder, self._schema = Folder(url), schema_of(facts)
        self._shard: ExitStack | None = None
        there = self._folder.names("")
        if there and _JOB not in there:
            raise OutputError(f"{url} holds {min(there)}, which is nothing of this job. Name another --out.")
        if not self._folder.create(_JOB, json.dumps({"mark": mark, **facts}).encode()):
            self._refuse_other(mark)

    def begin(self, number: int) -> None:
        self.close()
        with ExitStack() as opened:
            self._draft: Draft = opened.enter_context(self._folder.draft(f"shard-{number:06d}.parquet"))
            self._writer: Any = opened.enter_context(pq.ParquetWriter(self._draft.file, self._schema))
            self._shard = opened.pop_all()
        self._waiting: list[Shard] = []

    def write(self, shard: Shard) -> list[Refusal]:
        self._waiting.append(shard)
        if sum(len(one.rows) for one in self._waiting) >= _ROW_GROUP:
            self._flush()
        return []

    def publish(self) -> None:
        if self._waiting:
            self._flush()
        with self._folder.reporting(""):
            self._writer.close()
        self._draft.publish()
        self.close()

    def close(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            with self._folder.reporting(""):
                shard.close()

    def _flush(self) -> None:
        with self._folder.reporting(""):
            self._writer.write_table(table_of(self._waiting, self._schema), row_group_size=_ROW_GROUP)
        self._waiting = []

    def _refuse_other(self, mark: str) -> None:
        try:
            found = json.loads(self._folder.read(_JOB) or b"{}").get("mark")
        except (ValueError, AttributeError):
            found = None
        if found != mark:
            raise OutputError(f"{self._folder.url} is the output of another job (its --work). Name another --out.")
