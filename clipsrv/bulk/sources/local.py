"""Images on this machine: files, folders and globs, always in the same order. Listing looks at names only."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from clipsrv.bulk.contract import IMAGE_SUFFIXES
from clipsrv.errors import ConfigError, ImageTooLargeError


def read_file(path: str, max_bytes: int) -> bytes:
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


def read_part(path: str, start: int, length: int) -> bytes:
    """`length` bytes of a file from `start` on, fewer where it ends. Raises OSError."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        file.seek(start)
        return file.read(length)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its writer for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def files_of(path: str) -> Iterator[str]:
    """The files that a path names. Raises ConfigError for one that is not there, or a glob without a match."""
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
