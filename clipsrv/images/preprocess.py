"""RGB image to `pixel_values`: the arithmetic of Hugging Face's CLIPImageProcessor (Pillow backend), to the bit.

resize_shortest_edge and center_crop, rescale, normalize, to channels first. Pure functions of Pillow and numpy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.images.resize import COMPILED, resize_window
from clipsrv.specs import PreprocessSpec

#: Beyond this ratio of the sides the whole resized image costs far more than its crop, even if numpy makes that.
_LONG_AND_THIN = 4


def preprocess_image(
    image: Image.Image, spec: PreprocessSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Pixels of one RGB image: float32 (3, S, S), written to `out` if given.

    Equal to CLIPImageProcessor: uint8 pixels after the crop to the bit, and the float32 values too, since
    each is one of the 3 x 256 values that the reference's own arithmetic gives.
    """
    crop = resize_and_crop(image, spec.shortest_edge, spec.crop_size)
    if out is None:
        out = np.empty((3, spec.crop_size, spec.crop_size), np.float32)
    for channel, table in enumerate(_normalized_levels(spec)):
        # mode="clip" only avoids numpy's buffering; a uint8 is always within the 256 levels.
        np.take(table, crop[:, :, channel], out=out[channel], mode="clip")
    return out


def resize_and_crop(image: Image.Image, shortest_edge: int, crop_size: int) -> NDArray[np.uint8]:
    """Bicubic resize to `shortest_edge`, then the centre: uint8 (crop_size, crop_size, 3).

    The long edge becomes int(shortest_edge * long / short) and the crop's offsets are floored, as in
    transformers.image_transforms (get_resize_output_image_size, center_crop).
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(shortest_edge * long / short)
    new_width, new_height = (shortest_edge, new_long) if width <= height else (new_long, shortest_edge)
    left, top = (new_width - crop_size) // 2, (new_height - crop_size) // 2
    if COMPILED or long > _LONG_AND_THIN * short:
        return resize_window(image, (new_width, new_height), (left, top), crop_size)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + crop_size, top + crop_size)))


@lru_cache(maxsize=8)
def _normalized_levels(spec: PreprocessSpec) -> NDArray[np.float32]:
    """(3, 256): what rescale and normalize make of each level, in the reference's order and precision."""
    levels = (np.arange(256).astype(np.float64) * spec.rescale_factor).astype(np.float32)
    mean, std = np.array(spec.image_mean, np.float32), np.array(spec.image_std, np.float32)
    return (levels - mean[:, None]) / std[:, None]
