"""A table with pgvector, which searches itself: exact, since its indexes are left aside. All its SQL is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psycopg
from psycopg import sql

from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.words import Facts, Found, Item

_COLUMNS = ("id", "location", "sha256", "embedding_id", "embedding")
_SECONDS = 10


class PostgresIndex:
    """Rows of one table, all of one embedding_id; used by one thread."""

    def __init__(self, url: str, table: str) -> None:
        """Raises ConfigError for what is no address, UnusableIndexError."""
        self.name, self._table = f"The table {table}", sql.Identifier(*table.split("."))
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ConfigError(f"This is not a PostgreSQL URL: {str(error).strip()}.") from None
        with self._reporting():
            self._connection = psycopg.connect(
                url, connect_timeout=_SECONDS, application_name="clipsrv-search", client_encoding="UTF8"
            )
        try:
            with self._reporting():
                self.facts = self._facts()
        except BaseException:
            self._connection.close()
            raise

    def nearest(self, query: Vectors, limit: int) -> list[Found]:
        """As words.Index has it; those that are equally near in the order of their ids."""
        statement = sql.SQL(
            "SELECT id, location, sha256, 1 - (embedding <=> %(query)s::vector) FROM {} "
            'ORDER BY embedding <=> %(query)s::vector, id COLLATE "C" LIMIT %(limit)s'
        ).format(self._table)
        values = {"query": orjson.dumps(query, option=orjson.OPT_SERIALIZE_NUMPY).decode(), "limit": limit}
        with self._reporting(), self._connection.transaction():
            self._connection.execute("SET LOCAL enable_indexscan = off")
            rows = self._connection.execute(statement, values).fetchall()
        return [Found(Item(str(name), str(path), str(sha256)), float(score)) for name, path, sha256, score in rows]

    def close(self) -> None:
        self._connection.close()

    def _facts(self) -> Facts:
        empty = sql.SQL("SELECT * FROM {} LIMIT 0").format(self._table)
        columns = {column.name for column in self._connection.execute(empty).description or ()}
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise UnusableIndexError(f"{self.name} has no column {', '.join(missing)}: name another with --table.")
        first = sql.SQL("SELECT embedding_id, vector_dims(embedding) FROM {} LIMIT 1").format(self._table)
        row = self._connection.execute(first).fetchone()
        if row is None:
            raise UnusableIndexError(f"{self.name} holds no vectors.")
        other = sql.SQL("SELECT embedding_id FROM {} WHERE embedding_id <> %s LIMIT 1").format(self._table)
        if mixed := self._connection.execute(other, (row[0],)).fetchone():
            raise UnusableIndexError(
                f"{self.name} holds vectors of two embedding_ids, {row[0]} and {mixed[0]}: they cannot be compared."
            )
        return Facts(str(row[0]), int(row[1]))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            reason = str(error).strip().split("\n")[0]
            raise UnusableIndexError(f"{self.name} cannot be searched: {reason}") from None
