"""An encoded image made small, for people to look at; never what a model sees."""

from __future__ import annotations

from contextlib import nullcontext
from io import BytesIO

from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import decode
from clipsrv.images.open import open_image
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

_QUALITY = 80


def thumbnail(blob: bytes, side: int, limits: ImageLimits = DEFAULT_LIMITS, budget: PixelBudget | None = None) -> bytes:
    """A JPEG of at most `side` pixels in both directions, upright, without any metadata; decoded within `budget`.

    Raises ImageError as decode_image does; MemoryError passes through.
    """
    opened, out = open_image(blob, limits, reduce_to=side), BytesIO()
    with budget.hold(opened.cost) if budget else nullcontext():
        image = decode(opened)
        image.thumbnail((side, side))
        image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
