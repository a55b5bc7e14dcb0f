"""The store that is a PostgreSQL table with pgvector, the same table that the TypeScript catalogue job writes.

The table is also the journal: what is in it is done. All SQL of the job is here.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import orjson
import psycopg
from psycopg import sql

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import BadFile, Shard
from clipsrv.bulk.stores.seen import Seen
from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors

Result = TypeVar("Result")

_NAME = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*")
_COLUMNS = ("id", "location", "sha256", "embedding_id", "embedding")
#: Too many connections, shutdown and start-up, serialization failures (PostgreSQL, appendix A).
_TRANSIENT = re.compile(r"08...|53300|57P0[123]|40001|40P01")
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 5.0


class PostgresStore:
    """Rows of one table, all of one embedding_id."""

    def __init__(
        self,
        url: str,
        table: str,
        embedding_id: str,
        dimensions: int,
        *,
        patience: float,
        warn: Callable[[str], None],
    ) -> None:
        """Makes extension and table if they are not there, and reads what is in the table.

        `patience` is how many seconds a statement is tried again while the database is away. Raises ConfigError for
        a name or URL that cannot be one, OutputError for a table of another shape or with another embedding_id.
        """
        if not _NAME.fullmatch(table):
            raise ConfigError(f"--table must be a plain name, or schema.name, not {table!r}.")
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ConfigError(f"--out is not a PostgreSQL URL: {str(error).strip()}.") from None
        self._url, self._shown, self._embedding_id = url, table, embedding_id
        self._table = sql.Identifier(*table.split("."))
        self._patience, self._warn = patience, warn
        self._connection: psycopg.Connection | None = None
        self._was_connected = False
        self._lock = threading.Lock()
        self._seen = Seen()
        self._checked_alone = False
        self._retrying(lambda connection: self._prepare(connection, dimensions))

    shards_done = 0

    def bad_before(self) -> Iterator[BadFile]:
        return iter(())

    def sha256_of(self, entry_id: str) -> str | None:
        return self._seen.sha256_at(entry_id)

    def holds(self, sha256: str) -> bool:
        return self._seen.first_place(sha256) is not None

    def vector(self, sha256: str) -> Vectors | None:
        place = self._seen.first_place(sha256)
        if place is None:
            return None
        query = sql.SQL("SELECT embedding::text FROM {} WHERE id = %s AND sha256 = %s").format(self._table)
        found = self._retrying(lambda connection: connection.execute(query, (place, sha256)).fetchone())
        return None if found is None else np.array(orjson.loads(found[0]), np.float32)

    def write(self, shard: Shard) -> None:
        """One transaction; repeating it changes nothing, so it may be tried again after a lost connection."""
        if not shard.rows:
            return
        ids, paths, digests = zip(*((row.id, row.path, row.sha256) for row in shard.rows), strict=True)
        vectors = [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in shard.vectors]
        upsert = sql.SQL(
            "INSERT INTO {} (id, location, sha256, embedding_id, embedding) "
            "SELECT id, location, sha256, %s, embedding::vector "
            "FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS row (id, location, sha256, embedding) "
            "ON CONFLICT (id) DO UPDATE SET (location, sha256, embedding_id, embedding) = "
            "(excluded.location, excluded.sha256, excluded.embedding_id, excluded.embedding)"
        ).format(self._table)

        def write(connection: psycopg.Connection) -> None:
            with connection.transaction():
                if not self._checked_alone:
                    # Two jobs with different models may both have found an empty table.
                    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"clipsrv {self._shown}",))
                    self._refuse_other(connection)
                connection.execute(upsert, (self._embedding_id, list(ids), list(paths), list(digests), vectors))

        self._retrying(write)
        self._checked_alone = True
        self._seen.add((row.id, row.sha256) for row in shard.rows)

    def finish(self) -> str:
        count = sql.SQL("SELECT count(*) FROM {}").format(self._table)
        found = self._retrying(lambda connection: connection.execute(count).fetchone())
        return f"{found[0] if found else 0:,} rows in the table {self._shown}"

    def close(self) -> None:
        self._seen.close()
        self._drop_connection()

    def _prepare(self, connection: psycopg.Connection, dimensions: int) -> None:
        if not connection.execute("SELECT 1 FROM pg_type WHERE typname = 'vector'").fetchone():
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        create = sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (id text PRIMARY KEY, location text NOT NULL, sha256 text NOT NULL, "
            "embedding_id text NOT NULL, embedding vector({}) NOT NULL)"
        )
        connection.execute(create.format(self._table, sql.Literal(dimensions)))
        self._check_columns(connection, dimensions)
        self._refuse_other(connection)
        with connection.transaction(), connection.cursor(name="stored") as cursor:
            cursor.itersize = 10_000
            cursor.execute(sql.SQL("SELECT id, sha256 FROM {}").format(self._table))
            self._seen.add((str(place), str(sha256)) for place, sha256 in cursor)

    def _check_columns(self, connection: psycopg.Connection, dimensions: int) -> None:
        rows = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (self._table.as_string(connection),),
        ).fetchall()
        types = {str(name): str(kind) for name, kind in rows}
        if missing := [name for name in _COLUMNS if name not in types]:
            raise OutputError(f"The table {self._shown} has no column {', '.join(missing)}: name another with --table.")
        if not types["embedding"].endswith(f"vector({dimensions})"):
            raise OutputError(
                f"The column embedding of {self._shown} is {types['embedding']}; this model needs "
                f"vector({dimensions}). Name another table with --table."
            )

    def _refuse_other(self, connection: psycopg.Connection) -> None:
        query = sql.SQL("SELECT embedding_id FROM {} WHERE embedding_id <> %s LIMIT 1").format(self._table)
        if other := connection.execute(query, (self._embedding_id,)).fetchone():
            raise OutputError(
                f"The table {self._shown} holds vectors of embedding_id {other[0]}; this job makes "
                f"{self._embedding_id}. They cannot be compared: name another table with --table."
            )

    def _retrying(self, run: Callable[[psycopg.Connection], Result]) -> Result:
        """`run` with a connection, again on a new one while the database is away. Raises OutputError."""
        ends, delay = time.monotonic() + self._patience, _FIRST_DELAY
        with self._lock:
            while True:
                try:
                    return run(self._connect())
                except psycopg.Error as error:
                    away = self._is_away(error)
                    self._drop_connection()
                    reason = str(error).strip().split("\n")[0]
                    if not away or time.monotonic() + delay > ends:
                        raise OutputError(f"The database refused, or stayed away: {reason}") from None
                    self._warn(f"The database is away ({reason}); trying again in {delay:g} s.")
                time.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _connect(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=10, application_name="clipsrv-bulk"
            )
            self._was_connected = True
        return self._connection

    def _is_away(self, error: psycopg.Error) -> bool:
        if not isinstance(error, psycopg.OperationalError) or not self._was_connected:
            return False  # a database that was never there is most likely a wrong URL
        if error.sqlstate:
            return _TRANSIENT.fullmatch(error.sqlstate) is not None
        return self._connection is None or self._connection.broken or self._connection.closed

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
