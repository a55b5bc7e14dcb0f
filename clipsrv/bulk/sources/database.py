"""Rows of a PostgreSQL query: an id, and an image in the row or where it lies. Only reads.

The query is a table in a query of ours, so it is run as it was given; an image in a row is asked for by its id.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry, bad_file
from clipsrv.bulk.sources.columns import Columns, entry_of
from clipsrv.errors import ConfigError, ImageTooLargeError
from clipsrv.installation import how_to_install

if TYPE_CHECKING:
    import psycopg
    from psycopg import Connection, sql

SCHEMES = ("postgresql://", "postgres://")

_PATH = "sql://"
_AT_ONCE = 2_000
#: Connections that images in rows are read over.
_CONNECTIONS = 4
_BYTES = 17  # the type bytea


def is_row(path: str) -> bool:
    """Whether `path` is that of an image in a row."""
    return path.startswith(_PATH)


class Database:
    """What `query` gives of the database at `url`. Safe for use by several threads."""

    def __init__(self, url: str, query: str, columns: Columns, seconds: float) -> None:
        """`seconds` is the longest that one row may take. Raises ConfigError for a URL that is none, or if the library
        is not there."""
        try:
            import psycopg
        except ImportError:
            raise ConfigError(f"PostgreSQL needs psycopg: {how_to_install('postgres')}") from None
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ConfigError(f"That is not a PostgreSQL URL: {str(error).strip()}.") from None
        self._url, self._query, self._columns = url, query.strip().rstrip(";"), columns
        self._milliseconds = max(1, min(2**31 - 1, int(seconds * 1_000)))
        self._found: tuple[str, str, bool] | None = None
        self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="sql")
        self._own = threading.local()
        self._open: set[Connection] = set()
        self._naming = threading.Lock()

    def rows(self) -> Iterator[Entry | BadFile]:
        """An entry for each row, ordered by id. Raises ConfigError for what the database refuses."""
        import psycopg
        from psycopg import sql

        try:
            with self._connect() as connection, connection.cursor(name="listed") as cursor:
                identity, image, held = self._names(connection)
                shown = sql.SQL("octet_length({})::text" if held else "{}").format(sql.Identifier(image))
                cursor.itersize = _AT_ONCE
                cursor.execute(
                    sql.SQL("SELECT {id}::text, {shown} FROM ({query}) AS listed ORDER BY listed.{id}").format(
                        id=sql.Identifier(identity), shown=shown, query=self._table(escaped=False)
                    )
                )
                for number, (key, value) in enumerate(cursor):
                    where = f"row {number} of the query"
                    if held and key and value is None:
                        yield bad_file(Entry(key, where), "bad_entry", f"{image} is NULL")
                    elif held and key:
                        yield Entry(key, f"{_PATH}{quote(key, safe='')}", int(value))
                    else:
                        yield entry_of(key, value, (identity, image), where)
        except psycopg.Error as error:
            raise ConfigError(f"The database refused the query: {_reason(error)}.") from None

    def fetch(self, path: str, max_bytes: int) -> Future[bytes]:
        """The image in the row of this path. The future raises FetchError, ImageTooLargeError."""
        return self._threads.submit(self._fetch, unquote(path.removeprefix(_PATH)), max_bytes)

    def close(self) -> None:
        """Ends connections, also those that wait."""
        threads, self._threads = self._threads, ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="sql")
        threads.shutdown(wait=False, cancel_futures=True)
        import psycopg

        for connection in list(self._open):
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=2.0)
                connection.close()

    def _names(self, connection: Connection) -> tuple[str, str, bool]:
        """The columns of ids and of images, and whether the latter holds bytes."""
        from psycopg import sql

        empty = sql.SQL("SELECT * FROM ({}) AS listed LIMIT 0").format(self._table(escaped=False))
        kinds = {column.name: column.type_code for column in connection.execute(empty).description or ()}
        identity, image = self._columns.among(list(kinds), "The query")
        if identity is None:
            raise ConfigError("Which column of the query has the ids? Give --id-column, or call it id.")
        return identity, image, kinds[image] == _BYTES

    def _fetch(self, key: str, max_bytes: int) -> bytes:
        import psycopg

        try:
            found = self._connection().execute(self._row(), (key,), binary=True).fetchall()
        except psycopg.Error as error:
            self._drop()
            again = isinstance(error, psycopg.OperationalError)
            raise FetchError("fetch_failed", f"The database did not give it: {_reason(error)}.", again=again) from None
        if len(found) != 1:
            code, message = ("fetch_failed", "Several rows have") if found else ("not_found", "No row has")
            raise FetchError(code, f"{message} this id.")
        value = found[0][0]
        if value is None:
            raise FetchError("empty_image", "The row has no image.")
        if len(value) > max_bytes:
            raise ImageTooLargeError(
                f"The image has {len(value):,} bytes; at most {max_bytes:,} are accepted.", limit=max_bytes
            )
        return bytes(value)

    def _row(self) -> sql.Composed:
        from psycopg import sql

        with self._naming:
            if self._found is None:
                self._found = self._names(self._connection())
            identity, image, _ = self._found
        return sql.SQL("SELECT {image} FROM ({query}) AS listed WHERE {id} = %s LIMIT 2").format(
            image=sql.Identifier(image), id=sql.Identifier(identity), query=self._table(escaped=True)
        )

    def _table(self, *, escaped: bool) -> sql.SQL:
        from psycopg import sql

        query = self._query.replace("%", "%%") if escaped else self._query
        return sql.SQL(f"\n{query}\n")

    def _connection(self) -> Connection:
        """This thread's own."""
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None or connection.closed:
            connection = self._own.connection = self._connect()
            connection.autocommit = True
            connection.execute(f"SET statement_timeout = {self._milliseconds}")
            self._open.add(connection)
        return connection

    def _connect(self) -> Connection:
        import psycopg

        connection = psycopg.connect(
            self._url,
            connect_timeout=10,
            tcp_user_timeout=30_000,
            application_name="clipsrv-bulk",
            client_encoding="UTF8",
        )
        connection.read_only = True
        return connection

    def _drop(self) -> None:
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is not None:
            self._open.discard(connection)
            connection.close()
            self._own.connection = None


def _reason(error: psycopg.Error) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
