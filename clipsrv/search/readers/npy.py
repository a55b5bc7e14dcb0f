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


def _rows(path: Path) -> tuple[int, int]:
    """The rows that the head of the file tells of, and those that are there whole. Raises ValueError."""
    with open_file(path) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or len(shape) != 2 or not (size := shape[1] * dtype.itemsize):
            return 0, 0  # nothing that would be taken
        return shape[0], (os.fstat(file.fileno()).st_size - file.tell()) // size


def _mapped(path: Path, facts: Facts) -> Vectors:
    try:
        rows, there = _rows(path)
        if there < rows:
            raise UnusableIndexError(f"{path} was cut short: of its {rows:,} rows {there:,} are there. Copy it again.")
        vectors = np.lib.format.open_memmap(path, mode="r")
    except ValueError:
        raise UnusableIndexError(f"{path} is no NumPy file of vectors, or was cut short.") from None
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
