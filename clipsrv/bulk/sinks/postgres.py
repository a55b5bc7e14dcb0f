"""The sink that is a PostgreSQL table: rows come by COPY, and take the place of those with the same id."""

from __future__ import annotations

from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Facts, Refusal, Shard
from clipsrv.bulk.stores.table import Table


class PostgresSink:
    """Rows of one table, all of one embedding_id; what is written is durable at once."""

    def __init__(self, url: str, table: str, facts: Facts, outage: Outage) -> None:
        """As Table has it."""
        self._table = Table(url, table, facts["embedding_id"], facts["dimensions"], outage, copy=True)

    def begin(self, number: int) -> None:
        pass

    def write(self, shard: Shard) -> list[Refusal]:
        return self._table.write(shard)

    def publish(self) -> None:
        pass

    def close(self) -> None:
        self._table.close()
