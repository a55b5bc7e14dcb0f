"""One file to pixels, and many of them in parallel, in order, with a bounded number in memory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clipsrv.bulk.records import BadFile, Entry, Store
from clipsrv.errors import ImageError, ImageTooLargeError, OutOfMemoryError
from clipsrv.images.budget import PixelBudget
from clipsrv.models.model import Model
from clipsrv.settings import ImageLimits

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepared:
    """One of: `bad`; already `stored` under its id; or `sha256` with `pixels`, float32 (3, S, S), which are None
    if the store held the same content when the file was read."""

    entry: Entry
    sha256: str = ""
    pixels: NDArray[np.float32] | None = None
    stored: bool = False
    bad: BadFile | None = None


@dataclass(frozen=True)
class Preparer:
    """Reads, hashes, decodes and preprocesses. Safe for use by several threads."""

    model: Model
    limits: ImageLimits
    budget: PixelBudget
    store: Store

    def __call__(self, entry: Entry, *, always: bool = False) -> Prepared:
        """Pixels are made unless the store makes them needless, or `always`. Raises OutOfMemoryError."""
        try:
            blob = _read(entry, self.limits.max_bytes)
            sha256 = hashlib.sha256(blob).hexdigest()
            if not always:
                if self.store.sha256_of(entry.id) == sha256:
                    return Prepared(entry, sha256, stored=True)
                if self.store.holds(sha256):
                    return Prepared(entry, sha256)
            return Prepared(entry, sha256, self.model.read_image(blob, self.limits, self.budget))
        except ImageError as error:
            return Prepared(entry, bad=_bad(entry, error.code, error.message))
        except UnicodeEncodeError:
            return Prepared(entry, bad=_bad(entry, "invalid_name", "Its name is not valid UTF-8: rename the file."))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Prepared(entry, bad=_bad(entry, "unreadable_file", f"The file cannot be read: {reason}."))
        except MemoryError:
            raise OutOfMemoryError(f"Not enough memory to decode {entry.path!r}.") from None


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """`function` of each item, in the items' order; at most `ahead` are begun before they are asked for."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(entry: Entry, max_bytes: int) -> bytes:
    """Raises UnicodeEncodeError for names that no output can hold."""
    entry.id.encode()
    entry.path.encode()
    with open(entry.path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > max_bytes:
            raise ImageTooLargeError(
                f"The image has {status.st_size:,} bytes; at most {max_bytes:,} are accepted.", limit=max_bytes
            )
        # A file may grow while it is read.
        return file.read(max_bytes + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its writer for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _bad(entry: Entry, code: str, message: str) -> BadFile:
    return BadFile(_shown(entry.id), _shown(entry.path), code, message)


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
