"""RGB picture to `pixel_values`: the arithmetic of Hugging Face's CLIPImageProcessor (Pillow backend), to the bit.

resize_shortest_edge and center_crop, rescale, normalize, to channels first. Pure functions of Pillow and numpy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.manifest import PreprocessSpec

#: Beyond this ratio of the sides the whole resized picture would cost far more than its crop.
_LONG_AND_THIN = 4


def preprocess_image(
    image: Image.Image, spec: PreprocessSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Pixels of one RGB picture: float32 (3, S, S), written to `out` if given.

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
    if long <= _LONG_AND_THIN * short:
        resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((left, top, left + crop_size, top + crop_size)))
    return resize_window(image, (new_width, new_height), (left, top), crop_size)


def resize_window(
    image: Image.Image, new_size: tuple[int, int], offset: tuple[int, int], size: int
) -> NDArray[np.uint8]:
    """uint8 (size, size, 3): what Image.resize to `new_size` and a crop at `offset` (left, top) give, at the cost of
    the crop alone."""
    (width, height), (new_width, new_height), (left, top) = image.size, new_size, offset
    columns = _Window(width, new_width, left, size)
    rows = _Window(height, new_height, top, size)
    (first_column, last_column), (first_row, last_row) = columns.span, rows.span
    picture = np.asarray(image.crop((first_column, first_row, last_column, last_row)), np.int32)
    # Pillow 13 takes the vertical pass first where that is the cheaper order; each pass rounds, so order matters.
    if new_height < height and 2 * (width - new_width) < height - new_height:
        return columns.apply(rows.apply(picture, axis=0), axis=1).astype(np.uint8)
    return rows.apply(columns.apply(picture, axis=1), axis=0).astype(np.uint8)


@lru_cache(maxsize=8)
def _normalized_levels(spec: PreprocessSpec) -> NDArray[np.float32]:
    """(3, 256): what rescale and normalize make of each level, in the reference's order and precision."""
    levels = (np.arange(256).astype(np.float64) * spec.rescale_factor).astype(np.float32)
    mean, std = np.array(spec.image_mean, np.float32), np.array(spec.image_std, np.float32)
    return (levels - mean[:, None]) / std[:, None]


class _Window:
    """Pillow's 8-bit bicubic pass along one axis, for the outputs of a window only (libImaging/Resample.c).

    Pillow can only resize whole pictures exactly: its `box` is rounded to float32. For a 1x200 picture the whole
    is 224x44,800. Coefficients are Pillow's: doubles, rounded to 22 bits; sums are rounded back to 8 bits.
    """

    _BITS = 22

    def __init__(self, size: int, new_size: int, start: int, count: int) -> None:
        scale = size / new_size
        stretch = max(scale, 1.0)
        support = 2.0 * stretch
        centers = (np.arange(start, start + count) + 0.5) * scale
        first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
        last = np.minimum((centers + support + 0.5).astype(np.int64), size)
        taps = np.arange((last - first).max())
        inside = taps < (last - first)[:, None]
        weights = np.where(inside, _bicubic((taps + first[:, None] - centers[:, None] + 0.5) / stretch), 0.0)
        # Summed tap by tap, as Pillow does: a pairwise sum could differ in the last bit.
        weights /= np.cumsum(weights, axis=1)[:, -1:]
        self._weights = np.trunc(weights * (1 << self._BITS) + np.copysign(0.5, weights)).astype(np.int32)
        self.span = int(first.min()), int(last.max())
        self._sources = np.where(inside, first[:, None] + taps, first[:, None]) - self.span[0]

    def apply(self, picture: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
        """int32 (rows, columns, 3) of 0 to 255, `axis` covering the span: the same with `axis` resized."""
        source = np.moveaxis(picture, axis, 0)
        total = np.full((len(self._sources), *source.shape[1:]), 1 << (self._BITS - 1), np.int32)
        for tap in range(self._sources.shape[1]):
            total += source[self._sources[:, tap]] * self._weights[:, tap, None, None]
        return np.moveaxis(np.clip(total >> self._BITS, 0, 255), 0, axis)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -0.5 (Keys 1981), in Pillow's order of operations."""
    x = np.abs(x)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
