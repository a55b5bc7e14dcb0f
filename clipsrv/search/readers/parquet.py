"""A Parquet file, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clipsrv.documents import open_file
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.facts import KEY, facts_of, parsed, read_facts
from clipsrv.search.readers.tables import COLUMNS, ROWS, blocks_of, check_columns
from clipsrv.search.streamed import Streamed
from clipsrv.search.words import Block, Facts


def open_parquet(path: Path) -> Streamed:
    """Raises UnusableIndexError, OSError, or ConfigError if pyarrow is not installed."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(f"Parquet needs pyarrow: {how_to_install('parquet')}") from None
    with _whole(path), open_file(path) as source, pq.ParquetFile(source) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    metadata = schema.metadata or {}
    if KEY in metadata:
        found = facts_of(parsed(metadata[KEY]), f"The metadata of {path}")
        facts = replace(found, rows=rows)
    else:
        facts = read_facts(path)
    check_columns(schema, facts, str(path))
    return Streamed(str(path), facts, lambda: _blocks(path, facts))


def _blocks(path: Path, facts: Facts) -> Iterator[Block]:
    import pyarrow.parquet as pq

    with _whole(path), open_file(path) as source, pq.ParquetFile(source) as file:
        yield from blocks_of(file.iter_batches(ROWS, columns=list(COLUMNS)), facts, str(path))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turns what pyarrow says of a file that is damaged, or is none of its own, into UnusableIndexError."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:  # OSError: what it cannot decode, too
        reason = str(error).split("\n", 1)[0]
        raise UnusableIndexError(f"{path} is no Parquet file, or is damaged: {reason}") from None
