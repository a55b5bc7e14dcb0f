"""Which images: files, folders, globs, lists and stdin to one stream of entries, always in the same order.

Looks at names only: no file is opened but the lists themselves.
"""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clipsrv.bulk.records import Entry
from clipsrv.errors import ConfigError

#: Of the files in a folder only these are taken; files named one by one are taken whatever their names.
SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".hif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
STDIN = "-"


@dataclass(frozen=True)
class Inputs:
    """What was asked for. `lists` are files of one path, or one JSON object with id and path, a line ("-": stdin).

    `null` makes NUL, not the newline, end a path of a list. Ids are paths, relative to `relative_to` if given.
    """

    paths: Sequence[str]
    lists: Sequence[str] = ()
    null: bool = False
    relative_to: str | None = None

    def entries(self) -> Iterator[Entry]:
        """Raises ConfigError for a path that is not there, a glob without a match or a list that cannot be read."""
        lists = [*self.lists, *(STDIN for path in self.paths if path == STDIN)]
        if lists.count(STDIN) > 1:
            raise ConfigError("Standard input can be read only once: give - in one place.")
        for path in self.paths:
            if path != STDIN:
                yield from map(self._entry, _expand(path))
        for name in lists:
            yield from self._read_list(name)

    def _entry(self, path: str) -> Entry:
        name = path if self.relative_to is None else os.path.relpath(path, self.relative_to)
        return Entry(Path(name).as_posix(), path)

    def _read_list(self, name: str) -> Iterator[Entry]:
        shown = "standard input" if name == STDIN else name
        try:
            if name == STDIN:
                yield from self._parse_list(sys.stdin.buffer, shown)
            else:
                with open(name, "rb") as file:
                    yield from self._parse_list(file, shown)
        except OSError as error:
            raise ConfigError(f"Cannot read the list {shown}: {error.strerror}.") from None

    def _parse_list(self, file: BinaryIO, shown: str) -> Iterator[Entry]:
        for number, item in enumerate(_split(file, b"\0" if self.null else b"\n"), 1):
            text = os.fsdecode(item if self.null else item.rstrip(b"\r"))
            if text.startswith("{") and not self.null:
                yield _parse_object(text, f"{shown}, line {number}")
            elif text:
                yield self._entry(text)


def _split(file: BinaryIO, end: bytes) -> Iterator[bytes]:
    rest = b""
    while block := file.read(1 << 16):
        *whole, rest = (rest + block).split(end)
        yield from whole
    if rest:
        yield rest


def _parse_object(text: str, where: str) -> Entry:
    try:
        record = json.loads(text)
        identity, path = record["id"], record["path"]
    except (ValueError, KeyError, RecursionError):
        raise ConfigError(
            f'{where}: a line that begins with {{ must be like {{"id": "42", "path": "a.jpg"}}.'
        ) from None
    if not isinstance(identity, str | int) or isinstance(identity, bool) or not isinstance(path, str) or not path:
        raise ConfigError(f"{where}: id must be a string or a whole number, path a string.")
    return Entry(str(identity), path)


def _expand(path: str) -> Iterator[str]:
    if os.path.isdir(path):
        yield from _walk(path)
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        found = sorted(_match(path))
        if not found:
            raise ConfigError(f"Nothing matches {path!r}.")
        for match in found:
            yield from _walk(match) if os.path.isdir(match) else (match,)
    else:
        raise ConfigError(f"There is no {path!r}.")


def _match(pattern: str) -> Iterator[str]:
    """Not glob.glob: its ** follows links to folders, and so loops."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base, wanted = Path(*parts[:fixed]), os.path.join(*parts[fixed:])
    hidden = any(part.startswith(".") for part in parts[fixed:])
    for match in base.glob(wanted):
        if hidden or not any(part.startswith(".") for part in match.relative_to(base).parts):
            yield str(match)


def _walk(folder: str) -> Iterator[str]:
    """Images below a folder by name; hidden names and links to folders are passed over, so no loop can form."""
    try:
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError as error:
        raise ConfigError(f"Cannot read the folder {folder!r}: {error.strerror}.") from None
    for child in children:
        if child.name.startswith("."):
            continue
        if child.is_dir(follow_symlinks=False):
            yield from _walk(child.path)
        elif os.path.splitext(child.name)[1].lower() in SUFFIXES and not child.is_dir():
            yield child.path
