"""What every format's walk gives, and what it raises.

A walk is bounded: it counts before it goes on, and a decoder is given only bytes that have been walked over. IndexError
and struct.error mean that the file ends, or points, beyond itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from clipsrv.errors import (
    ImageError,
    ImageTooComplexError,
    InvalidImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)

#: What a walk that leaves the file raises.
OUTSIDE = (IndexError, OverflowError, struct.error)

#: Bytes that a pixel may take while it is decoded, turned upright and made RGB; formats that need more say so.
BYTES_PER_PIXEL = 16
#: The same of a pixel with more than 8 bits a level, and of one that is scaled in float64 between extremes.
DEEP_BYTES_PER_PIXEL, RANGED_BYTES_PER_PIXEL = 2 * BYTES_PER_PIXEL, 3 * BYTES_PER_PIXEL


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Kind(Enum):
    """Which limit of pixels an image is held to."""

    PLAIN = auto()
    #: The decoder allocates the whole canvas at several bytes a pixel, however small the file.
    CANVAS = auto()
    #: More than 8 bits a level.
    DEEP = auto()


class Levels(NamedTuple):
    """What the numbers of a grey image of more than 8 bits mean.

    `dtype` is the kind of number they are in memory, where Pillow takes them for another; `top` the level of white, and
    None where there is none: then the image's own lowest and highest are black and white. `inverted` turns these round.
    """

    dtype: str | None = None
    top: int | None = 65_535
    inverted: bool = False


PLAIN = Levels()


@dataclass(frozen=True)
class Header:
    """What is known before decoding. `format` is Pillow's name of the decoder, `data` what that is given.

    `size` is the image's own, before it is turned upright. `claimed` are the pixels that limits are about: the image's,
    or those of what the file holds instead if they are more. `memory` are the bytes that decoding may take at once.
    """

    format: str
    size: Size
    data: bytes
    claimed: int
    memory: int
    kind: Kind = Kind.PLAIN
    #: JPEG: whether libjpeg can decode it smaller, whether it keeps all of it in memory, and whether the end mark is
    #: there.
    scalable: bool = False
    kept_whole: bool = False
    ends: bool = True
    #: TIFF: how to read numbers of more than 8 bits, and whether what a decoder gives as RGB is YCbCr.
    ycbcr: bool = False
    levels: Levels = PLAIN
    #: AVIF: the part to be shown (left, top, right, bottom), before it is turned upright.
    crop: tuple[int, int, int, int] | None = None


def damaged(name: str) -> ImageError:
    return InvalidImageError(f"The image begins like {name} but its header is damaged or cut off.")


def truncated() -> ImageError:
    return TruncatedImageError("The image ends too early: it is truncated.")


def unsupported(name: str, what: str) -> ImageError:
    """A whole file in a form of `name` that is not read; `what` is a phrase."""
    return UnsupportedImageFormatError(f"This form of {name} is not read: {what}.", format=name)


class Count:
    """How many there are of something in one file. Raises ImageTooComplexError past `limit`; `what` is a plural."""

    def __init__(self, limit: int, name: str, what: str) -> None:
        self._limit, self._name, self._what, self._count = limit, name, what, 0

    def add(self, more: int = 1) -> None:
        self._count = within(self._count + more, self._limit, self._name, self._what)


def within(count: int, limit: int, name: str, what: str) -> int:
    """`count`, if it is at most `limit`. Raises ImageTooComplexError; `what` is a plural."""
    if count > limit:
        raise ImageTooComplexError(f"The {name} has too many {what}: at most {limit:,} are read.", limit=limit)
    return count
