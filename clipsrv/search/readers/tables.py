"""What Arrow tables of both Parquet and Lance have in common: their batches as blocks of an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.words import Block, Facts, Item

COLUMNS = (*Item._fields, "embedding")
#: Rows of a batch.
ROWS = 16_384


def check_columns(schema: Any, facts: Facts, name: str) -> None:
    """Raises UnusableIndexError unless a schema has id, path, sha256 and an embedding of so many float32."""
    import pyarrow as pa

    wanted = {**dict.fromkeys(Item._fields, pa.string()), "embedding": pa.list_(pa.float32(), facts.dimensions)}
    for column, kind in wanted.items():
        at = schema.get_field_index(column)
        found = schema.field(at).type if at >= 0 else "not there"
        if found != kind:
            raise UnusableIndexError(f"The column {column} of {name} is {found}; it must be {kind}.")


def blocks_of(batches: Iterable[Any], facts: Facts, name: str) -> Iterator[Block]:
    """The blocks of record batches whose columns are COLUMNS. Raises UnusableIndexError."""
    first = 0
    for batch in batches:
        if any(batch.column(column).null_count for column in COLUMNS):
            raise UnusableIndexError(f"{name} has rows without {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}.")
        if not batch.num_rows:
            continue
        flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
        vectors = flat.astype(np.float32, copy=False).reshape(-1, facts.dimensions)
        yield Block(first, vectors, _Items(batch))
        first += batch.num_rows


class _Items:
    """The items of a batch by their place."""

    def __init__(self, batch: Any) -> None:
        self._columns = [batch.column(name) for name in Item._fields]

    def __call__(self, place: int) -> Item:
        return Item(*(column[place].as_py() for column in self._columns))
