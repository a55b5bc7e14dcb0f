"""The store that is a PostgreSQL table: also the journal, since what is in it is done."""

from __future__ import annotations

from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Refusal, Shard
from clipsrv.bulk.stores.seen import Growing
from clipsrv.bulk.stores.table import Table
from clipsrv.runtime.vectors import Vectors


class PostgresStore(Growing):
    """Rows of one table, all of one embedding_id."""

    def __init__(self, url: str, table: str, embedding_id: str, dimensions: int, outage: Outage) -> None:
        """Reads what is in the table; see Table."""
        self._table = Table(url, table, embedding_id, dimensions, outage)
        super().__init__()
        self._table.note(self._seen.add)

    def vector(self, sha256: str) -> Vectors | None:
        place = self._seen.first_place(sha256)
        return None if place is None else self._table.vector(str(place), sha256)

    def write(self, shard: Shard) -> list[Refusal]:
        refused = self._table.write(shard)
        failed = {refusal.place for refusal in refused}
        self._seen.add((row.id, row.sha256) for place, row in enumerate(shard.rows) if place not in failed)
        return refused

    def finish(self) -> str:
        return self._table.in_words()

    def close(self) -> None:
        self._seen.close()
        self._table.close()
