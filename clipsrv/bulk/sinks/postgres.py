"""The sink that is a PostgreSQL table: rows come by COPY, and take the place of those with the same id."""

from __future__ import annotations

from collections.abc import Callable

from clipsrv.bulk.records import Facts, Refusal, Shard
from clipsrv.bulk.stores.table import Table


class PostgresSink:
    """Rows of one table, all of one embedding_id; what is written is durable at once."""

    def __init__(self, url: str, table: str, facts: Facts, *, patience: float, warn: Callable[[str], None]) -> None:
        """As Table has it."""
        embedding_id, dimensions = facts["embedding_id"], facts["dimensions"]
        self._table = Table(url, table, embedding_id, dimensions, patience=patience, warn=warn, copy=True)

    def begin(self, number: int) -> None:
        pass

    def write(self, shard: Shard) -> list[Refusal]:
        return self._table.write(shard)

    def publish(self) -> None:
        pass

    def close(self) -> None:
        self._table.close()
