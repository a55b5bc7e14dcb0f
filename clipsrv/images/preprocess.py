"""RGB image to `pixel_values`: the arithmetic of Hugging Face's image processors (Pillow backend), to the bit.

resize and center_crop, rescale, normalize, to channels first. Pure functions of Pillow and numpy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.images.agreement import by_pillow, resize_is_pillows
from clipsrv.images.resize import COMPILED, resize_window
from clipsrv.specs import PreprocessSpec

#: Beyond this ratio of the sides the whole resized image costs far more than its crop, even if numpy makes that.
_LONG_AND_THIN = 4


def preprocess_image(
    image: Image.Image, spec: PreprocessSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Pixels of one RGB image: float32 (3, S, S), written to `out` if given.

    Equal to the processor that `spec` describes: uint8 pixels after the crop to the bit, and the float32 values too,
    since each is one of the 3 x 256 values that the reference's own arithmetic gives.
    """
    crop = resize_and_crop(image, spec)
    if out is None:
        out = np.empty((3, spec.crop_size, spec.crop_size), np.float32)
    for channel, table in enumerate(_normalized_levels(spec)):
        # mode="clip" only avoids numpy's buffering; a uint8 is always within the 256 levels.
        np.take(table, crop[:, :, channel], out=out[channel], mode="clip")
    return out


def resize_and_crop(image: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resized, then the centre: uint8 (crop_size, crop_size, 3).

    Beside a shortest edge the long one becomes int(shortest_edge * long / short), as in get_resize_output_image_size of
    transformers.image_transforms and in torchvision. The crop's offsets are floored as in the former's center_crop, or
    rounded half to even as in the latter's.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_width = new_height = spec.shortest_edge
    if spec.resize == "shortest_edge":
        new_long = int(spec.shortest_edge * long / short)
        new_width, new_height = (new_width, new_long) if width <= height else (new_long, new_height)
    left, top = (_offset(side - spec.crop_size, spec.crop_offset) for side in (new_width, new_height))
    if resize_is_pillows() and (COMPILED or long > _LONG_AND_THIN * short):
        return resize_window(image, (new_width, new_height), (left, top), spec.crop_size, spec.resample)
    resized = by_pillow(image, (new_width, new_height), spec.resample)
    return np.asarray(resized.crop((left, top, left + spec.crop_size, top + spec.crop_size)))


def _offset(over: int, rule: str) -> int:
    return over // 2 if rule == "floor" else round(over / 2)


@lru_cache(maxsize=8)
def _normalized_levels(spec: PreprocessSpec) -> NDArray[np.float32]:
    """(3, 256): what rescale and normalize make of each level, in the reference's order and precision."""
    levels = (np.arange(256).astype(np.float64) * spec.rescale_factor).astype(np.float32)
    mean, std = np.array(spec.image_mean, np.float32), np.array(spec.image_std, np.float32)
    return (levels - mean[:, None]) / std[:, None]
