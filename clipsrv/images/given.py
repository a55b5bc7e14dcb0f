"""Images that a program holds already, Pillow's own or pixels in an array: to RGB as a lossless file of them would be.

Knows nothing of models.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.errors import EmptyImageError, ImageError, InvalidImageError
from clipsrv.images.damage import DECODER_ERRORS, named
from clipsrv.images.open import judge_sides
from clipsrv.images.orientation import upright
from clipsrv.images.rgb import to_rgb
from clipsrv.settings import DEFAULT_LIMITS, ImageLimits

Given = Image.Image | NDArray[Any]

#: Levels of an array for each number of its axes: grey, or with channels last grey, RGB and RGBA.
_CHANNELS = {1, 3, 4}


def is_given(image: object) -> TypeGuard[Given]:
    """Whether it is an image of Pillow's, or an array."""
    return isinstance(image, Image.Image | np.ndarray)


def rgb_of(image: Given, limits: ImageLimits = DEFAULT_LIMITS, *, apply_orientation: bool = True) -> Image.Image:
    """RGB image of one of Pillow's, turned as its EXIF says, or of an array: uint8 (height, width), (height, width, 1),
    (height, width, 3) or, whose alpha is dropped, (height, width, 4); or uint16 (height, width).

    The image given stays as it is, but that Pillow reads its pixels. Of the limits those of sides and aspect count.
    Raises ImageError; MemoryError passes through.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if min(image.size) == 0:
        raise EmptyImageError("The image has no pixel.")
    judge_sides(image.size, limits)
    problem: ImageError
    try:
        image.load()
        if "transparency" in image.info:  # which is taken away
            image = image.copy()
        return to_rgb(upright(image) if apply_orientation else image)
    except ImageError as error:
        problem = error.with_traceback(None)
    except DECODER_ERRORS as error:
        problem = named(error)
    raise problem


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    is_grey = pixels.ndim == 2
    if pixels.dtype == np.uint8 and (is_grey or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS)):
        flat = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
    elif pixels.dtype == np.uint16 and is_grey:
        flat = pixels.astype("<u2")
    else:
        raise InvalidImageError(
            f"An array must be uint8 of shape (height, width, 3), or grey (height, width), or with alpha; this is "
            f"{pixels.dtype} of shape {pixels.shape}. Of floats from 0 to 1: (255 * pixels).round().astype('uint8')."
        )
    if flat.size == 0:
        raise EmptyImageError("The image has no pixel.")
    return Image.fromarray(np.ascontiguousarray(flat))
