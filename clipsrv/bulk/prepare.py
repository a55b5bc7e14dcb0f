"""One file to pixels, for many of them at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clipsrv.bulk.deadline import Deadline
from clipsrv.bulk.records import BadFile, Entry, Source, Store, bad_file, unfit_name
from clipsrv.errors import ImageError, OutOfMemoryError
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

    source: Source
    model: Model
    limits: ImageLimits
    budget: PixelBudget
    store: Store
    deadline: Deadline

    def __call__(self, listed: Entry | BadFile, *, always: bool = False) -> Prepared:
        """Pixels are made unless the store makes them needless, or `always`. Raises OutOfMemoryError."""
        if isinstance(listed, BadFile):
            return Prepared(Entry(listed.id, listed.path), bad=listed)
        if unfit := unfit_name(listed):
            return Prepared(listed, bad=bad_file(listed, "invalid_name", unfit))
        try:
            blob = self.source.read(listed.path, self.limits.max_bytes)
            sha256 = hashlib.sha256(blob).hexdigest()
            if self.deadline.was_late(sha256):
                return Prepared(listed, bad=bad_file(listed, "took_too_long", "It took too long to decode before."))
            if not always:
                if self.store.sha256_of(listed.id) == sha256:
                    return Prepared(listed, sha256, stored=True)
                if self.store.holds(sha256):
                    return Prepared(listed, sha256)
            with self.deadline.over(listed.path, sha256):
                opened = self.model.open_image(blob, self.limits)
            with self.budget.hold(opened.cost), self.deadline.over(listed.path, sha256):
                return Prepared(listed, sha256, self.model.decode_image(opened))
        except ImageError as error:
            return Prepared(listed, bad=bad_file(listed, error.code, error.message))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Prepared(listed, bad=bad_file(listed, "unreadable_file", f"The file cannot be read: {reason}."))
        except MemoryError:
            raise OutOfMemoryError(f"Not enough memory to decode {listed.path!r}.") from None
