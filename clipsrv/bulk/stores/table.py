"""A PostgreSQL table with pgvector, the same that the TypeScript catalogue job writes: all SQL of the job is here."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import orjson
import psycopg
from psycopg import sql

from clipsrv.bulk.contract import COLUMNS, LOCK
from clipsrv.bulk.errors import AwayError, OutputError
from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Refusal, Row, Shard, counted
from clipsrv.errors import ConfigError
from clipsrv.runtime.vectors import Vectors

Result = TypeVar("Result")

_NAME = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*")
#: Too many connections, shutdown and start-up, serialization failures (PostgreSQL, appendix A).
_TRANSIENT = re.compile(r"08...|53300|57P0[123]|40001|40P01")


class Table:
    """Rows of one table, all of one embedding_id. May be used by several threads."""

    def __init__(
        self,
        url: str,
        table: str,
        embedding_id: str,
        dimensions: int,
        outage: Outage,
        *,
        copy: bool = False,
    ) -> None:
        """Makes extension and table if they are not there.

        With `copy` rows come by COPY and a temporary table, which a user may not be allowed to make; without, in the
        statement that stores them. `outage` waits for the database while it is away. Raises ConfigError for a name or
        URL that cannot be one, OutputError for a table of another shape or with another embedding_id.
        """
        if not _NAME.fullmatch(table):
            raise ConfigError(f"--table must be a plain name, or schema.name, not {table!r}.")
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ConfigError(f"--out is not a PostgreSQL URL: {str(error).strip()}.") from None
        self._url, self._shown, self._embedding_id = url, table, embedding_id
        self._table = sql.Identifier(*table.split("."))
        self._rows = sql.SQL("pg_temp.clipsrv_rows") if copy else None
        self._upsert = _upsert(self._table, self._rows)
        self._outage = outage
        self._connection: psycopg.Connection | None = None
        self._was_connected = False
        self._lock = threading.Lock()
        self._has_written = False
        self._retrying(lambda connection: self._prepare(connection, dimensions))

    def note(self, take: Callable[[Iterator[tuple[str, str]]], None]) -> None:
        """Gives id and sha256 of every row to `take`, anew if the database went away meanwhile."""
        # A row with another kind of sha256 is none of ours: as good as absent, until it is written anew.
        known = sql.SQL("SELECT id, sha256 FROM {} WHERE sha256 ~ '^[0-9a-f]{{64}}$'").format(self._table)

        def read(connection: psycopg.Connection) -> None:
            with connection.transaction(), connection.cursor(name="stored") as cursor:
                cursor.itersize = 10_000
                cursor.execute(known)
                take((str(identity), str(sha256)) for identity, sha256 in cursor)

        self._retrying(read)

    def vector(self, identity: str, sha256: str) -> Vectors | None:
        """The vector of the row with this id, if it is of this content."""
        query = sql.SQL("SELECT embedding::text FROM {} WHERE id = %s AND sha256 = %s").format(self._table)
        found = self._retrying(lambda connection: connection.execute(query, (identity, sha256)).fetchone())
        return None if found is None else np.array(orjson.loads(found[0]), np.float32)

    def write(self, shard: Shard) -> list[Refusal]:
        """One transaction; repeating it changes nothing, so it may be tried again after a lost connection. Gives the
        rows that the database refuses. Raises OutputError."""
        vectors = [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in shard.vectors]
        places = list(enumerate(zip(shard.rows, vectors, strict=True)))

        def write(connection: psycopg.Connection) -> list[Refusal]:
            with connection.transaction():
                if not self._has_written:
                    # Two jobs with different models may both have found an empty table.
                    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"clipsrv {self._shown}",))
                    self._refuse_other(connection)
                return self._insert(connection, places)

        if not places:
            return []
        refused = self._retrying(write)
        if not self._has_written and len(refused) == len(places) > 1 and refused[0].code == "refused_row":
            # One row against a constraint is that row's fault; all of the first show a table made for others.
            raise OutputError(f"No row fits the table {self._shown}. {refused[0].message}")
        self._has_written = True
        return refused

    def _insert(self, connection: psycopg.Connection, places: list[tuple[int, tuple[Row, str]]]) -> list[Refusal]:
        """Stores the rows in one statement; when the database refuses, each half by itself, down to the culprits."""
        rows = [(row.id, row.path, row.sha256, self._embedding_id, vector) for _, (row, vector) in places]
        try:
            with connection.transaction():
                if self._rows is None:
                    connection.execute(self._upsert, [list(column) for column in zip(*rows, strict=True)])
                else:
                    self._copy(connection, self._rows, rows)
                    connection.execute(self._upsert)
        except psycopg.Error as error:
            if not _is_of_rows(error):
                raise
            if len(places) > 1:
                middle = len(places) // 2
                return self._insert(connection, places[:middle]) + self._insert(connection, places[middle:])
            code = "refused_row" if isinstance(error, psycopg.IntegrityError) else "invalid_name"
            return [Refusal(places[0][0], code, f"The database refuses it: {_reason(error)}.")]
        return []

    def _copy(self, connection: psycopg.Connection, into: sql.SQL, rows: Sequence[tuple[str, ...]]) -> None:
        columns = ", ".join(f"{name} text" for name in COLUMNS)
        connection.execute(sql.SQL(f"CREATE TEMPORARY TABLE IF NOT EXISTS clipsrv_rows ({columns})"))
        connection.execute(sql.SQL("TRUNCATE {}").format(into))
        with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(into)) as copy:
            for row in rows:
                copy.write_row(row)

    def in_words(self) -> str:
        """How many rows there are, and where."""
        count = sql.SQL("SELECT count(*) FROM {}").format(self._table)
        found = self._retrying(lambda connection: connection.execute(count).fetchone())
        return f"{counted(found[0] if found else 0, 'row')} in the table {self._shown}"

    def close(self) -> None:
        self._drop_connection()

    def _prepare(self, connection: psycopg.Connection, dimensions: int) -> None:
        definition = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items()).format(dimensions=dimensions)
        create = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(self._table, sql.SQL(definition))
        with connection.transaction():
            # IF NOT EXISTS is no protection against a second job that creates the same at the same moment.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (LOCK,))
            if not connection.execute("SELECT 1 FROM pg_type WHERE typname = 'vector'").fetchone():
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(create)
        self._check_columns(connection, dimensions)
        self._refuse_other(connection)

    def _check_columns(self, connection: psycopg.Connection, dimensions: int) -> None:
        rows = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (self._table.as_string(connection),),
        ).fetchall()
        types = {str(name): str(kind) for name, kind in rows}
        if missing := [name for name in COLUMNS if name not in types]:
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
        """`run` with a connection, again on a new one while the database is away. Raises OutputError, GivenUpError."""
        with self._lock:
            return self._outage.outlast("The database", lambda: self._attempt(run))

    def _attempt(self, run: Callable[[psycopg.Connection], Result]) -> Result:
        try:
            return run(self._connect())
        except psycopg.Error as error:
            away, reason = self._is_away(error), _reason(error)
            self._drop_connection()
            raise AwayError(reason) if away else OutputError(f"The database refused: {reason}.") from None

    def _connect(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=10,
                application_name="clipsrv-bulk",
                client_encoding="UTF8",  # whatever the database's: what it cannot hold is for it to say
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


def _upsert(table: sql.Identifier, rows: sql.SQL | None) -> sql.Composed:
    """The statement that puts new rows in place of old ones: those of a table `rows`, or a column's values in each of
    its parameters."""
    names = ", ".join(COLUMNS)
    values = ", ".join("embedding::vector" if name == "embedding" else name for name in COLUMNS)
    others = [name for name in COLUMNS if name != "id"]
    given = sql.SQL(f"unnest({', '.join('%s::text[]' for _ in COLUMNS)}) AS row ({names})")
    return sql.SQL(
        f"INSERT INTO {{}} ({names}) SELECT {values} FROM {{}} "
        f"ON CONFLICT (id) DO UPDATE SET ({', '.join(others)}) = ({', '.join(f'excluded.{name}' for name in others)})"
    ).format(table, given if rows is None else rows)


def _is_of_rows(error: psycopg.Error) -> bool:
    """Whether the statement was refused for what is in its rows: text the database cannot hold, a key too long for
    its index (54000), one id twice by the column's own rules (21000), a constraint."""
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError) or error.sqlstate in {"54000", "21000"}


def _reason(error: psycopg.Error) -> str:
    return str(error).strip().split("\n")[0]
