"""A part of an image as requests ask for it, in the query or in JSON. Whether there is such a part the image says."""

from __future__ import annotations

import re
from typing import Any

from clipsrv.images.region import Cropped, Encoded, Region
from clipsrv.server.wire.envelope import InvalidFieldError

CROP = "crop"
_NUMBERS = re.compile(r"-?\d{1,9}(,-?\d{1,9}){3}", re.ASCII)


def crop_of(value: Any) -> Region | None:
    """Of the list [x, y, width, height] in JSON; None for null. Raises InvalidFieldError."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != len(Region._fields) or not all(map(_is_whole, value)):
        raise InvalidFieldError("'crop' must be a list of four whole numbers: [x, y, width, height].")
    return Region(*map(int, value))


def crop_of_query(text: str | None) -> Region | None:
    """Of `x,y,width,height`; None for None. Raises InvalidFieldError."""
    if text is None:
        return None
    if not _NUMBERS.fullmatch(text):
        raise InvalidFieldError("crop must be four whole numbers: crop=x,y,width,height.")
    return Region(*map(int, text.split(",")))


def cropped(image: Encoded, region: Region | None) -> Encoded:
    """The `region` of an image, which may be asked for in the query and in the body, if it is the same. Raises
    InvalidFieldError."""
    if region is None:
        return image
    if not isinstance(image, Cropped):
        return Cropped(image, region)
    if image.region != region:
        raise InvalidFieldError("The query and the body ask for different crops.")
    return image


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):  # 10.0 is the 10 of programs that know one kind of number
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)
