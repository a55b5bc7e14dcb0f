"""A NumPy file, mapped and never copied, with its items in FILE.ids.jsonl."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from clipsrv.documents import open_file
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.facts import beside, read_facts
from clipsrv.search.held import Held
from clipsrv.search.lines import Lines
from clipsrv.search.words import Facts


def open_npy(path: Path) -> Held:
    """Raises UnusableIndexError, or OSError."""
    facts = read_facts(path)
    if facts.rows == 0:
        raise UnusableIndexError(f"{path} holds no vectors.")
    with open_file(path) as file:
        then = os.fstat(file.fileno())
    vectors = _mapped(path, facts)
    ids = beside(path, "ids.jsonl")
    try:
        lines = Lines(ids.open("rb"), str(ids))
    except OSError as error:
        raise UnusableIndexError(f"Cannot read {ids}, the ids of {path}: {error.strerror}.") from None
    if len(lines) != len(vectors):
        lines.close()
        raise UnusableIndexError(
            f"{ids} has {len(lines):,} lines and {path} {len(vectors):,} rows: they do not belong together."
        )

    def check() -> None:
        with suppress(OSError):  # gone, or another has its name: what is mapped stays
            now = path.stat()
            if now.st_ino == then.st_ino and (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
                # Behind the end of a file that was cut short meanwhile reading ends the process.
                raise UnusableIndexError(f"{path} was written over while it was in use: open it again.")

    return Held(str(path), facts, vectors, lines, check)


def _mapped(path: Path, facts: Facts) -> Vectors:
    try:
        vectors = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise UnusableIndexError(f"{path} is no NumPy file of vectors, or was cut short: {error}.") from None
    if vectors.dtype != np.dtype("<f4") or vectors.ndim != 2 or not vectors.flags.c_contiguous:
        raise UnusableIndexError(f"{path} holds {vectors.dtype} of shape {vectors.shape}, not rows of float32.")
    rows, dimensions = vectors.shape
    if dimensions != facts.dimensions or facts.rows not in (None, rows):
        told = f"{'some' if facts.rows is None else f'{facts.rows:,}'} rows of {facts.dimensions:,}"
        raise UnusableIndexError(
            f"{path} has {rows:,} rows of {dimensions:,} numbers and its manifest tells of {told}: they do not belong "
            "together."
        )
    return vectors
