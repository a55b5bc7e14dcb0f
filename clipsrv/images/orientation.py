"""Turning an image upright as its EXIF says."""

from __future__ import annotations

import struct

from PIL import Image

_ORIENTATION = 0x0112
#: What turns an image of each EXIF orientation upright (as ImageOps.exif_transpose, which also rewrites the EXIF).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: What reading a damaged EXIF block raises.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, KeyError, IndexError, TypeError, Warning)


def upright(image: Image.Image) -> Image.Image:
    """`image` turned as its EXIF says; a damaged EXIF block says nothing."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _UNREADABLE:
        return image
    return image if turn is None else image.transpose(turn)
