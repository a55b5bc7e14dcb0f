"""Which reader an index needs, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.facts import beside
from clipsrv.search.held import Held, hold
from clipsrv.search.readers.jsonl import open_jsonl
from clipsrv.search.readers.lance import open_lance
from clipsrv.search.readers.npy import open_npy
from clipsrv.search.readers.parquet import open_parquet
from clipsrv.search.streamed import Streamed
from clipsrv.search.words import URL_SCHEMES, Index

_OR_A_TABLE = ", or be postgresql://..."
_READERS: Mapping[str, Callable[[Path], Held | Streamed]] = {
    ".npy": open_npy,
    ".jsonl": open_jsonl,
    ".parquet": open_parquet,
    ".lance": open_lance,
}


def open_index(where: str, table: str) -> Index:
    """The output `where` of embed, or the `table` of a postgresql:// URL. Raises ConfigError, UnusableIndexError."""
    return _open_table(where, table) if where.startswith(URL_SCHEMES) else _open_file(Path(where), _OR_A_TABLE)


def open_held(where: str) -> Held:
    """The output `where` of embed, which is a file, with all its rows at hand. Raises as `open_index`."""
    if where.startswith(URL_SCHEMES):
        raise ConfigError("A table is searched where it is, by SQL: an index to serve is a file that embed wrote.")
    index = _open_file(Path(where))
    return index if isinstance(index, Held) else hold(index)


def version_of(where: str) -> object:
    """What is another as soon as the output `where` has been replaced; None if it is not there. Of its files embed
    writes the manifest last; each version of a Lance dataset is a new file among its versions."""
    for path in (beside(Path(where), "manifest.json"), Path(where) / "_versions", Path(where)):
        with suppress(OSError):
            found = path.stat()
            return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _open_file(path: Path, or_else: str = "") -> Held | Streamed:
    if (read := _READERS.get(path.suffix.lower())) is None:
        raise ConfigError(f"{path} is no index: its name must end in {', '.join(_READERS)}{or_else or '.'}")
    try:
        path.stat()
        return read(path)
    except FileNotFoundError:
        if beside(path, "parts").exists():
            raise UnusableIndexError(f"{path} is not finished: run the same embed command again.") from None
        raise UnusableIndexError(f"There is no {path}: make it with python -m clipsrv embed.") from None
    except OSError as error:
        raise UnusableIndexError(f"Cannot read {path}: {error.strerror or error}.") from None


def _open_table(url: str, table: str) -> Index:
    try:
        from clipsrv.search.readers.postgres import PostgresIndex
    except ImportError:
        raise ConfigError(f"PostgreSQL needs psycopg: {how_to_install('postgres')}") from None
    return PostgresIndex(url, table)
