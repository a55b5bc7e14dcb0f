"""The journal of a job that ends in a file: finished shards beside the output, each there whole or not at all.

FILE.parts/manifest.json   what the job is made of; another job is refused
FILE.parts/inputs.jsonl    the list of entries
FILE.parts/000000.npy      vectors of a shard, then
FILE.parts/000000.jsonl    its rows and bad images; the shard counts once this is there
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.records import BadFile, Facts, Row, Shard
from clipsrv.runtime.vectors import Vectors

MANIFEST, INPUTS, NEW_INPUTS, LOCK = "manifest.json", "inputs.jsonl", "inputs.new", "lock"


class Parts:
    """The folder of one job. Only one process at a time can hold it. Every method raises OutputError."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder if need be, and holds it until `close`."""
        self.folder = folder
        self._lock = hold(folder, LOCK)

    def facts(self) -> Facts | None:
        """The facts of the job that was begun here, if there is one."""
        return read_facts(self.folder / MANIFEST)

    def begin(self, facts: Facts) -> None:
        """Makes the new list of inputs the job's own and writes `facts`: from here on the job can be continued."""
        with reporting(self.folder):
            (self.folder / NEW_INPUTS).replace(self.folder / INPUTS)
            write_whole(self.folder / MANIFEST, lambda file: file.write(json.dumps(facts, indent=2).encode()))

    def discard(self) -> None:
        """Forgets the job: its shards, list and facts."""
        with reporting(self.folder):
            # The manifest first: without it whatever is left is no job.
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if not path.name.startswith((LOCK, NEW_INPUTS)):
                    path.unlink()

    def close(self) -> None:
        """Lets another process have the folder, and removes it if no job is in it."""
        if not (self.folder / MANIFEST).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def write(self, shard: Shard) -> None:
        lines = [asdict(row) for row in shard.rows] + [asdict(bad) for bad in shard.bad]
        lines.append({"rows": len(shard.rows), "bad": len(shard.bad)})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with reporting(self.folder):
            write_whole(self._vectors(shard.number), lambda file: np.save(file, shard.vectors, allow_pickle=False))
            write_whole(self._rows(shard.number), lambda file: file.write(text.encode()))

    def count(self, dimensions: int) -> int:
        """How many shards from the first are whole. What comes after the first that is not is removed."""
        with reporting(self.folder):
            names = sorted((path.stem for path in self.folder.glob("[0-9]*.jsonl")), key=int)
            done = 0
            while done < len(names) and names[done] == _name(done) and self._is_whole(done, dimensions):
                done += 1
            for name in names[done:]:
                (self.folder / f"{name}.jsonl").unlink()
        return done

    def read(self, number: int) -> Shard:
        """A whole shard."""
        rows, bad = self.read_rows(number)
        return Shard(number, rows, self.vectors(number), bad)

    def read_rows(self, number: int) -> tuple[list[Row], list[BadFile]]:
        """A shard without its vectors."""
        with reporting(self.folder):
            return self._read_lines(number)

    def vectors(self, number: int) -> Vectors:
        """The vectors of a whole shard."""
        with reporting(self.folder):
            vectors: Vectors = np.load(self._vectors(number), allow_pickle=False)
        return vectors

    def _is_whole(self, number: int, dimensions: int) -> bool:
        try:
            rows, _ = self._read_lines(number)
            vectors = np.load(self._vectors(number), mmap_mode="r" if rows else None, allow_pickle=False)
        except (OSError, ValueError, TypeError, KeyError):
            return False
        return bool(vectors.shape == (len(rows), dimensions) and vectors.dtype == np.float32)

    def _read_lines(self, number: int) -> tuple[list[Row], list[BadFile]]:
        *lines, end = map(json.loads, self._rows(number).read_text(encoding="utf-8").splitlines())
        rows, bad = lines[: end["rows"]], lines[end["rows"] :]
        if len(rows) != end["rows"] or len(bad) != end["bad"]:
            raise ValueError("the shard is cut short")
        return [Row(**row) for row in rows], [BadFile(**one) for one in bad]

    def _vectors(self, number: int) -> Path:
        return self.folder / f"{_name(number)}.npy"

    def _rows(self, number: int) -> Path:
        return self.folder / f"{_name(number)}.jsonl"


def hold(folder: Path, name: str) -> sqlite3.Connection:
    """Makes `folder` if need be, and keeps other jobs out of it until what this gives is closed, by its file `name`.
    Raises OutputError."""
    try:
        folder.mkdir(exist_ok=True)
        # SQLite's lock works on every system and ends with its process, however that ends.
        lock = sqlite3.connect(folder / name, timeout=0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}.") from None
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise OutputError(f"Another job is at work in {folder}.") from None
        raise OutputError(f"Cannot write to {folder}: {error}.") from None
    return lock


def read_facts(path: Path) -> Facts | None:
    """Facts written as JSON, None if there is no such file. Raises OutputError if it cannot be read."""
    with reporting(path.parent):
        try:
            facts: Facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise OutputError(f"{path} is damaged: begin again with --restart.") from None
    return facts


@contextmanager
def reporting(where: Path) -> Iterator[None]:
    """Turns the system's refusals into OutputError about `where`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot use {where}: {error.strerror or error}.") from None


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` with a file that becomes `path` only when it is written to the end and on the disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # a new name is on the disk only when its folder is
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _name(number: int) -> str:
    return f"{number:06d}"
