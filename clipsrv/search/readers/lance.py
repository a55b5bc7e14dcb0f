"""A Lance dataset, the version that is there when it is opened, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.exact import nearest
from clipsrv.search.facts import KEY, facts_of, parsed
from clipsrv.search.readers.tables import COLUMNS, ROWS, blocks_of, check_columns
from clipsrv.search.streamed import Streamed
from clipsrv.search.words import Block, Facts, Found

#: Parts of the ANN index that are looked into, and how many times as many as are wanted are compared exactly.
_PROBES, _REFINE = 32, 4


def open_lance(path: Path) -> LanceIndex:
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
    facts = replace(found, rows=rows)
    check_columns(schema, facts, str(path))
    return LanceIndex(str(path), facts, lambda: _blocks(dataset, path, facts), dataset)


@dataclass(frozen=True)
class LanceIndex(Streamed):
    """Read to its end, it is exact; its ANN index, if it has one, is not."""

    dataset: Any

    def approximate(self, query: Vectors, limit: int) -> list[Found]:
        """As `nearest`, of those that the ANN index finds. Raises UnusableIndexError, also if there is none."""
        path = Path(self.name)
        with _whole(path):
            if not self.dataset.describe_indices():
                raise UnusableIndexError(f"{path} has no ANN index: make it with embed --out {path.name} --ann.")
            asked = {"column": "embedding", "q": query, "k": limit, "nprobes": _PROBES, "refine_factor": _REFINE}
            found = self.dataset.to_table(columns=[*COLUMNS, "_distance"], nearest=asked)
            batches = found.select(COLUMNS).combine_chunks().to_batches()
            return nearest(self.name, blocks_of(batches, self.facts, self.name), query, limit)


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
