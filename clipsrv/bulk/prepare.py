"""One file to pixels, for many of them at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clipsrv.bulk.deadline import Deadline
from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry, Source, Store, bad_file, unfit_name
from clipsrv.errors import ImageError, ImageTooLargeError, OutOfMemoryError
from clipsrv.images.budget import PixelBudget
from clipsrv.models.model import Model
from clipsrv.settings import ImageLimits

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

    source: Source
    model: Model
    limits: ImageLimits
    budget: PixelBudget
    store: Store
    deadline: Deadline

    def __call__(self, listed: Entry | BadFile, *, always: bool = False) -> Prepared:
        """Pixels are made unless the store makes them needless, or `always`. Raises OutOfMemoryError, GivenUpError."""
        blob = self.read(listed)
        return blob if isinstance(blob, Prepared) else self.decode(_entry(listed), blob, always=always)

    def read(self, listed: Entry | BadFile) -> bytes | Prepared:
        """The bytes of an image, or what there is to say of one that has none."""
        entry = _entry(listed)
        if isinstance(listed, BadFile):
            return Prepared(entry, bad=listed)
        if unfit := unfit_name(listed):
            return Prepared(listed, bad=bad_file(listed, "invalid_name", unfit))
        return _told(listed, partial(self._read, listed))

    def decode(self, entry: Entry, blob: bytes, *, always: bool = False) -> Prepared:
        """Pixels out of the bytes of `entry`, as above."""
        return _told(entry, partial(self._decode, entry, blob, always))

    def _read(self, entry: Entry) -> bytes:
        limit = self.limits.max_bytes
        if entry.size is not None and entry.size > limit:
            raise ImageTooLargeError(
                f"The image has {entry.size:,} bytes; at most {limit:,} are accepted.", limit=limit
            )
        return self.source.read(entry.path, limit)

    def _decode(self, entry: Entry, blob: bytes, always: bool) -> Prepared:
        sha256 = hashlib.sha256(blob).hexdigest()
        if self.deadline.was_late(sha256):
            return Prepared(entry, bad=bad_file(entry, "took_too_long", "It took too long to decode before."))
        if not always:
            if self.store.sha256_of(entry.id) == sha256:
                return Prepared(entry, sha256, stored=True)
            if self.store.holds(sha256):
                return Prepared(entry, sha256)
        with self.deadline.over(entry.path, sha256):
            opened = self.model.open_image(blob, self.limits)
        with self.budget.hold(opened.cost), self.deadline.over(entry.path, sha256):
            return Prepared(entry, sha256, self.model.decode_image(opened))


@dataclass(frozen=True)
class FetchingPreparer:
    """A Preparer for images that lie elsewhere: the thread that calls it waits for the bytes, those of `decoders` make
    pixels of them. `room` is bytes of images that are on their way or wait to be decoded, over all threads."""

    prepare: Preparer
    decoders: ThreadPoolExecutor
    room: PixelBudget

    def __call__(self, listed: Entry | BadFile) -> Prepared:
        """As Preparer has it."""
        size = listed.size if isinstance(listed, Entry) else 0
        with self.room.hold(self.prepare.limits.max_bytes if size is None else size):
            blob = self.prepare.read(listed)
            if isinstance(blob, Prepared):
                return blob
            return self.decoders.submit(self.prepare.decode, _entry(listed), blob).result()


def _entry(listed: Entry | BadFile) -> Entry:
    return listed if isinstance(listed, Entry) else Entry(listed.id, listed.path)


def _told(entry: Entry, act: Callable[[], Result]) -> Result | Prepared:
    """What `act` gives, or why the image cannot be used."""
    try:
        return act()
    except (ImageError, FetchError) as error:
        return Prepared(entry, bad=bad_file(entry, error.code, error.message))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Prepared(entry, bad=bad_file(entry, "unreadable_file", f"The file cannot be read: {reason}."))
    except MemoryError:
        raise OutOfMemoryError(f"Not enough memory to decode {entry.path!r}.") from None
