"""JSON lines, parsed from the first to the last for each question."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from clipsrv.documents import open_file
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.facts import read_facts
from clipsrv.search.lines import item_of
from clipsrv.search.streamed import Streamed
from clipsrv.search.words import Block, Facts, Item

#: Lines parsed together.
_ROWS = 4096
#: Bytes of a line: what is longer is no row of an output.
_LONGEST = 2**22


def open_jsonl(path: Path) -> Streamed:
    """Raises UnusableIndexError, or OSError."""
    facts = read_facts(path)
    with open_file(path):
        return Streamed(str(path), facts, lambda: _blocks(path, facts))


def _blocks(path: Path, facts: Facts) -> Iterator[Block]:
    first = 0
    with open_file(path) as file:
        while lines := list(islice(iter(lambda: file.readline(_LONGEST), b""), _ROWS)):
            records = [_record(line, facts, f"{path}, line {first + at:,}") for at, line in enumerate(lines, 1)]
            vectors = np.array([vector for _, vector in records], np.float32)
            yield Block(first, vectors, [item for item, _ in records].__getitem__)
            first += len(lines)


def _record(line: bytes, facts: Facts, where: str) -> tuple[Item, list[Any]]:
    try:
        record = orjson.loads(line)
        item, vector = item_of(record), record["embedding"]
        if len(vector) == facts.dimensions and all(isinstance(value, float | int) for value in vector):
            return item, vector
    except (ValueError, TypeError, KeyError):
        pass
    raise UnusableIndexError(f"{where}, is not an object with id, path, sha256 and {facts.dimensions:,} numbers.")
