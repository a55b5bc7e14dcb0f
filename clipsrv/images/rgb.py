"""Any decoded image to RGB with 8 bits a level. Knows nothing of files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.errors import InvalidImageError
from clipsrv.images.structure.header import PLAIN, Levels

#: Pillow's modes of more than 8 bits a level.
_DEEP_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


def to_rgb(image: Image.Image, levels: Levels = PLAIN) -> Image.Image:
    """RGB image of any decoded one: Pillow's `convert("RGB")`, and scaling for 16-bit, I and F images.

    16 bits are divided by 257, so that white stays white. I and F have no natural range: the image's own
    smallest and largest finite values become 0 and 255. `levels` says where it is otherwise. `image.info` loses its
    transparency. Raises InvalidImageError if no value is finite.
    """
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_to_8_bit(image, levels)).convert("RGB")
    # convert("RGB") would look transparency up, and stumble over a damaged one, only to drop it.
    image.info.pop("transparency", None)
    # convert() copies even when there is nothing to convert: 5 ms of a 12-megapixel photo.
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: Image.Image, levels: Levels) -> NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode.startswith("I;16") and levels.top is not None:
        scaled = ((values.astype(np.uint32) * (255 * 2) + levels.top) // (2 * levels.top)).astype(np.uint8)
    else:
        if levels.dtype is not None:
            values = values.astype(values.dtype.newbyteorder("=")).view(levels.dtype)
        scaled = _from_lowest_to_highest(values)
    return 255 - scaled if levels.inverted else scaled


def _from_lowest_to_highest(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        raise InvalidImageError("The image has no finite pixel value.")
    low, high = numbers[finite].min(), numbers[finite].max()
    scaled = (np.where(finite, numbers, low) - low) * (255 / (high - low or 1))
    result: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result
