"""Whether the resize of our own gives the pixels of the Pillow that is installed, and that gives those ids stand for.

Looked at once a process, on small images: Pillow changed its order of passes before (in 13), and may again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.images.resize import FILTERS, resize_window

#: Sizes before and after. Between them either pass comes first, sides shrink and grow, and taps reach over the edge.
_TRIALS = (
    ((97, 61), (24, 15)),
    ((40, 300), (32, 60)),
    ((300, 40), (60, 32)),
    ((21, 13), (63, 39)),
    ((64, 48), (64, 21)),
)
#: sha256 of what Pillow 13.0 makes of the trials: the pixels that every preprocessing id stands for.
_PIXELS_OF_PILLOW_13 = "942855cdd80dc10bb21c9f1a4baddc5086775386257bbdf91b73e51f7fd56cd7"


def by_pillow(image: Image.Image, size: tuple[int, int], resample: str) -> Image.Image:
    """The whole image as the installed Pillow resizes it; `resample` names a filter of FILTERS."""
    return image.resize(size, Image.Resampling[resample.upper()])


@cache
def resize_is_pillows() -> bool:
    """Whether every trial of our own resize, compiled where it is, equals the installed Pillow's to the bit."""
    return all(
        np.array_equal(_ours(image, size, resample), np.asarray(by_pillow(image, size, resample)))
        for image, size, resample in _trials()
    )


@cache
def pixels_of_pillow() -> str | None:
    """None if the installed Pillow gives the pixels that preprocessing ids stand for, else a name for its own."""
    digest = hashlib.sha256()
    for trial in _trials():
        digest.update(np.asarray(by_pillow(*trial)).tobytes())
    return None if digest.hexdigest() == _PIXELS_OF_PILLOW_13 else digest.hexdigest()[:16]


def _trials() -> Iterator[tuple[Image.Image, tuple[int, int], str]]:
    for before, after in _TRIALS:
        noise = hashlib.shake_256(repr(before).encode()).digest(3 * before[0] * before[1])
        for resample in FILTERS:
            yield Image.frombytes("RGB", before, noise), after, resample


def _ours(image: Image.Image, size: tuple[int, int], resample: str) -> NDArray[np.uint8]:
    side = min(size)  # of a window, which is square
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    for corner in product(range(0, size[0], side), range(0, size[1], side)):
        x, y = (min(at, length - side) for at, length in zip(corner, size, strict=True))
        whole[y : y + side, x : x + side] = resize_window(image, size, (x, y), side, resample)
    return whole
