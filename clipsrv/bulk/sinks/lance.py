"""The sink that is a Lance dataset, on this machine or in an object store, for any number of drivers at once.

Rows are put in place of those with the same id, in commits that are made or not made.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import lance

from clipsrv.bulk.records import Facts, Refusal, Shard
from clipsrv.bulk.stores.arrow import schema_of, table_of
from clipsrv.bulk.stores.lance import refuse_other, reporting

#: Rows of a commit: some 32 MB of vectors.
_ROWS = 16_384
#: So long old versions are kept, for who reads one.
_KEPT = timedelta(minutes=10)
#: Times that a commit is tried again which another driver's came before.
_TRIES = 30


class LanceSink:
    """Rows of one dataset, all of one embedding_id."""

    def __init__(self, url: str, facts: Facts) -> None:
        """Makes the dataset if need be. Raises OutputError if it is nobody's of clipsrv or of another embedding_id."""
        self._url, self._schema = url, schema_of(facts)
        self._waiting: list[Shard] = []
        with reporting(url):
            with suppress(OSError):  # it is there; another driver may have made it this moment
                lance.write_dataset(self._schema.empty_table(), url, mode="create")
            self._dataset: Any = lance.dataset(url)
        refuse_other(self._dataset, url, facts)

    def begin(self, number: int) -> None:
        self._waiting = []

    def write(self, shard: Shard) -> list[Refusal]:
        self._waiting.append(shard)
        if sum(len(one.rows) for one in self._waiting) >= _ROWS:
            self._commit()
        return []

    def publish(self) -> None:
        if self._waiting:
            self._commit()
        with reporting(self._url):
            self._dataset.cleanup_old_versions(_KEPT)

    def close(self) -> None:
        self._waiting = []

    def _commit(self) -> None:
        with reporting(self._url):
            merge = self._dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.conflict_retries(_TRIES).execute(table_of(self._waiting, self._schema))
        self._waiting = []
