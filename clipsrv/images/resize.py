"""Pillow's resize, for a window of the result only: level for level the same, at the cost of the window.

Pillow itself can only resize whole images exactly: its `box` is rounded to float32. The passes run in the compiled
_resize where it could be built, else in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Bits of a weight behind the point, as in libImaging/Resample.c (PRECISION_BITS).
_BITS = 22
#: Bytes of an image that are resized at a time: what was copied out of it is still in the core's cache, and small
#: enough for the C library to give the same memory again instead of fresh pages.
_STRIP = 1 << 18
#: Levels of a pixel as Pillow keeps an RGB image; the fourth means nothing.
_LEVELS = 4

_Image = bytes | NDArray[np.uint8]
_Pass = Callable[[_Image, int, NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]], None]


class Kernel(NamedTuple):
    """Both passes. They take an RGBX image and its width, first sources and weights, and where to put the outputs.

    `along_rows` makes uint8 (rows, outputs, 4) of (rows, width, 4); its weights are int32 (outputs, taps, 4), each four
    times over, in multiples of four taps. `down_columns` makes (outputs, width, 4), of weights (outputs, taps).
    """

    along_rows: _Pass
    down_columns: _Pass


class _Axis(NamedTuple):
    """One direction of a resize: output i is the sum of `weights[i]` times the sources from `start + first[i]` on."""

    start: int
    length: int
    first: NDArray[np.int32]
    weights: NDArray[np.int32]
    lanes: NDArray[np.int32]


def resize_window(
    image: Image.Image,
    new_size: tuple[int, int],
    offset: tuple[int, int],
    size: int,
    resample: str = "bicubic",
    kernel: Kernel | None = None,
) -> NDArray[np.uint8]:
    """uint8 (size, size, 3): what Image.resize of an RGB image to `new_size` and a crop at `offset` (left, top) give.
    `resample` names a filter of FILTERS, `kernel` is the fastest here unless given."""
    (width, height), (new_width, new_height), (left, top) = image.size, new_size, offset
    columns = _axis(width, new_width, left, size, resample)
    rows = _axis(height, new_height, top, size, resample)
    # Pillow 13 takes the vertical pass first where that is the cheaper order; each pass rounds, so order matters.
    rows_first = new_height < height and 2 * (width - new_width) < height - new_height
    return (_rows_first if rows_first else _columns_first)(image, columns, rows, kernel or FASTEST)[:, :, :3]


def _columns_first(image: Image.Image, columns: _Axis, rows: _Axis, kernel: Kernel) -> NDArray[np.uint8]:
    middle = np.empty((rows.length, len(columns.first), _LEVELS), np.uint8)
    step = max(1, _STRIP // (_LEVELS * columns.length))
    for start in range(0, rows.length, step):
        part = middle[start : start + step]
        strip = _levels(image, columns.start, rows.start + start, columns.length, len(part))
        kernel.along_rows(strip, columns.length, columns.first, columns.lanes, part)
    out = np.empty((len(rows.first), len(columns.first), _LEVELS), np.uint8)
    kernel.down_columns(middle, len(columns.first), rows.first, rows.weights, out)
    return out


def _rows_first(image: Image.Image, columns: _Axis, rows: _Axis, kernel: Kernel) -> NDArray[np.uint8]:
    middle = np.empty((len(rows.first), columns.length, _LEVELS), np.uint8)
    step = max(1, _STRIP // (_LEVELS * rows.length))
    for start in range(0, columns.length, step):
        width = min(step, columns.length - start)
        strip = _levels(image, columns.start + start, rows.start, width, rows.length)
        part = np.empty((len(rows.first), width, _LEVELS), np.uint8)
        kernel.down_columns(strip, width, rows.first, rows.weights, part)
        middle[:, start : start + width] = part
    out = np.empty((len(rows.first), len(columns.first), _LEVELS), np.uint8)
    kernel.along_rows(middle, columns.length, columns.first, columns.lanes, out)
    return out


def _levels(image: Image.Image, left: int, top: int, width: int, height: int) -> bytes:
    """A part of an RGB image as RGBX; zeros beyond its edges.

    Not by crop() and tobytes(), which copy twice more, and whose small images take the memory that a large one left.
    """
    box = (left, top, left + width, top + height)
    if box[2] > image.width or box[3] > image.height:  # an image of fewer pixels than there are taps
        return image.crop(box).tobytes("raw", "RGBX")
    encoder = Image._getencoder("RGB", "raw", ("RGBX", 0, 1))
    encoder.setimage(image.im, box)
    levels: bytes = encoder.encode(_LEVELS * width * height)[2]
    return levels


@lru_cache(maxsize=64)
def _axis(size: int, new_size: int, start: int, count: int, resample: str) -> _Axis:
    """Sources and weights of `count` outputs from `start` on, of `size` pixels made `new_size`: Pillow's, which are
    doubles rounded to 22 bits. Taps are filled up to a multiple of four with weights of zero, on the side where there
    are sources."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    reach, weigh = FILTERS[resample]
    support = reach * stretch
    centers = (np.arange(start, start + count) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), size)
    taps = int(-(-(last - first).max() // 4) * 4)
    filled = np.minimum(first, max(size - taps, 0))
    sources = filled[:, None] + np.arange(taps)
    inside = (sources >= first[:, None]) & (sources < last[:, None])
    weights = np.where(inside, weigh((sources - centers[:, None] + 0.5) / stretch), 0.0)
    # Summed tap by tap, as Pillow does: a pairwise sum could differ in the last bit.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    rounded = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights)).astype(np.int32)
    begin, end = int(filled.min()), int(filled.max()) + taps
    lanes = np.repeat(rounded[:, :, None], _LEVELS, axis=2)
    return _Axis(begin, end - begin, (filled - begin).astype(np.int32), rounded, lanes)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -0.5 (Keys 1981), in Pillow's order of operations."""
    x = np.abs(x)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The triangle that joins neighbours by straight lines."""
    return np.maximum(1.0 - np.abs(x), 0.0)


#: By name: how far a filter reaches at a scale of 1, in pixels to either side, and its weight at a distance.
FILTERS = {"bicubic": (2.0, _bicubic), "bilinear": (1.0, _bilinear)}


def _in_numpy(
    image: _Image, width: int, first: NDArray[np.int32], weights: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    """Either pass; which one shows in the weights, four times over or not."""
    source, along_rows = np.frombuffer(image, np.uint8).reshape(-1, width, _LEVELS), weights.ndim == 3
    sums = np.full(out.shape, 1 << (_BITS - 1), np.int32)
    for tap in range(weights.shape[1]):
        if along_rows:
            sums += source[:, first + tap] * weights[:, tap]
        else:
            sums += source[first + tap] * weights[:, tap, None, None]
    out[:] = np.clip(sums >> _BITS, 0, 255)


#: The cure where _resize is missing.
HOW_TO_COMPILE = "install a C compiler and Python's headers, then install clipsrv again"

#: The kernels that run here, slowest first.
KERNELS = {"numpy": Kernel(_in_numpy, _in_numpy)}
try:
    from clipsrv.images import _resize
except ImportError:
    COMPILED = False
else:
    COMPILED = True
    KERNELS["C"] = Kernel(_resize.along_rows, _resize.down_columns)
    if _resize.HAS_AVX2:
        KERNELS["C with AVX2"] = Kernel(_resize.along_rows_avx2, _resize.down_columns_avx2)
FASTEST_NAME, FASTEST = next(reversed(KERNELS.items()))
