"""A Lance dataset, the version that is there when it is opened, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.facts import KEY, facts_of, parsed
from clipsrv.search.readers.tables import COLUMNS, ROWS, blocks_of, check_columns
from clipsrv.search.streamed import Streamed
from clipsrv.search.words import Block, Facts


def open_lance(path: Path) -> Streamed:
    """Raises UnusableIndexError, OSError, or ConfigError if pylance is not installed."""
    try:
        import lance
    except ImportError:
        raise ConfigError(f"Lance needs pylance: {how_to_install('lance')}") from None
    if not (path / "_versions").is_dir():
        raise UnusableIndexError(f"{path} is no Lance dataset, or nothing was stored in it yet.")
    with _whole(path):
        dataset = lance.dataset(str(path))
        schema, rows = dataset.schema, dataset.count_rows()
    found = facts_of(parsed((schema.metadata or {}).get(KEY, b"")), f"The metadata of {path}")
    facts = Facts(found.embedding_id, found.dimensions, found.model, rows)
    check_columns(schema, facts, str(path))
    return Streamed(str(path), facts, lambda: _blocks(dataset, path, facts))


def _blocks(dataset: Any, path: Path, facts: Facts) -> Iterator[Block]:
    with _whole(path):
        yield from blocks_of(dataset.to_batches(columns=list(COLUMNS), batch_size=ROWS), facts, str(path))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turns what Lance says of a dataset that is damaged into UnusableIndexError."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        reason = str(error).split(", /", 1)[0].split("\n", 1)[0]
        raise UnusableIndexError(f"{path} cannot be read: {reason}.") from None
