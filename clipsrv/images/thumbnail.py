"""An encoded image made small, for people to look at; never what a model sees."""

from __future__ import annotations

from io import BytesIO

from clipsrv.images.decode import decode_image
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

_QUALITY = 80


def thumbnail(blob: bytes, side: int, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """A JPEG of at most `side` pixels in both directions, upright, without any metadata.

    Raises ImageError as decode_image does; MemoryError passes through.
    """
    image = decode_image(blob, limits, reduce_to=side)
    image.thumbnail((side, side))
    out = BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
