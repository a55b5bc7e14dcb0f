"""Images on this machine: files, folders, globs, lists and stdin to one stream of entries, always in the same order.

Listing looks at names only: no file is opened but the lists themselves.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipsrv.bulk.contract import IMAGE_SUFFIXES
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.lists import STDIN, check_encoding, read_list
from clipsrv.errors import ConfigError, ImageTooLargeError

_SHOWN = 3


@dataclass(frozen=True)
class Inputs:
    """What was asked for. `lists` are files of one path, or one JSON object with id and path, a line ("-": stdin).

    `null` makes NUL, not the newline, end a path of a list; `encoding` is that of lists. Ids are paths, relative to
    `relative_to` if given. Raises ConfigError for an encoding that is none.
    """

    paths: Sequence[str]
    lists: Sequence[str] = ()
    null: bool = False
    relative_to: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        check_encoding(self.encoding)

    def entries(self) -> Iterator[Entry | BadFile]:
        """Raises ConfigError for a path that is not there, a glob without a match or a list that cannot be read."""
        lists = [*self.lists, *(STDIN for path in self.paths if path == STDIN)]
        if lists.count(STDIN) > 1:
            raise ConfigError("Standard input can be read only once: give - in one place.")
        for path in self.paths:
            if path != STDIN:
                yield from map(self._entry, _expand(path))
        for name in lists:
            for item in read_list(name, null=self.null, encoding=self.encoding):
                yield self._entry(item) if isinstance(item, str) else item

    @property
    def in_words(self) -> str:
        """What was asked for, the first of it if it is much."""
        named = ["standard input" if name == STDIN else repr(name) for name in (*self.paths, *self.lists)]
        return ", ".join(named[:_SHOWN]) + (f" and {len(named) - _SHOWN:,} more" if len(named) > _SHOWN else "")

    def read(self, path: str, max_bytes: int) -> bytes:
        """As records.Source has it. Raises UnicodeEncodeError for a path that is no file's name."""
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            if status.st_size > max_bytes:
                raise ImageTooLargeError(
                    f"The image has {status.st_size:,} bytes; at most {max_bytes:,} are accepted.", limit=max_bytes
                )
            # A file may grow while it is read, or say 0 bytes and have no end.
            return file.read(max_bytes + 1)

    def _entry(self, path: str) -> Entry:
        name = path if self.relative_to is None else os.path.relpath(path, self.relative_to)
        return Entry(Path(name).as_posix(), path)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its writer for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
        raise ConfigError(f"There is no file or folder {path!r}.")


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
        elif os.path.splitext(child.name)[1].lower() in IMAGE_SUFFIXES and not child.is_dir():
            yield child.path
