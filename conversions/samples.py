"""Inputs of which int8 learns what its layers will see: images made in code, none of them among those that judge it.

Knows nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsrv.images.preprocess import preprocess_image
from clipsrv.specs import PreprocessSpec
from conversions.activations import Samples

_SIDE = 256
#: Images, of which a batch of a size that fits any memory is made. Twice or thrice as many taught nothing more.
_IMAGES, _BATCH = 64, 8
#: Further ones, of which none is learnt.
_FURTHER = 32


def pixel_samples(spec: PreprocessSpec, taken: int | None) -> Samples:
    """For an image tower whose vector is taken at that token."""

    def batches(images: Sequence[Image.Image]) -> list[NDArray[np.float32]]:
        pixels = np.stack([preprocess_image(image, spec) for image in images])
        return np.split(pixels, range(_BATCH, len(images), _BATCH))

    return Samples(batches(_images(_IMAGES, 0)), taken, batches(_images(_FURTHER, 3)))


@cache
def _images(count: int, seed: int) -> tuple[Image.Image, ...]:
    return tuple(sample_images(count, seed))


def sample_images(count: int, seed: int) -> Iterator[Image.Image]:
    """Images with a natural spectrum (1 / frequency), a hard-edged shape on each, and every eighth flat."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None])
    frequency[0, 0] = 1 / _SIDE
    for index in range(count):
        noise = rng.standard_normal((2, 3, *frequency.shape))
        waves = np.fft.irfft2((noise[0] + 1j * noise[1]) / frequency ** rng.uniform(0.7, 1.6), s=(_SIDE, _SIDE))
        mixed = np.tensordot(0.4 * np.eye(3) + 0.6 * rng.random((3, 3)), waves, 1).transpose(1, 2, 0)
        image = mixed / mixed.std() * rng.uniform(0.1, 0.3) + rng.random(3)
        top, left = rng.integers(0, _SIDE - 40, 2)
        height, width = rng.integers(20, 160, 2)
        image[top : top + height, left : left + width] = rng.random(3)
        if index % 8 == 7:
            image[:] = rng.integers(0, 2, 3)
        yield Image.fromarray(np.rint(image.clip(0, 1) * 255).astype(np.uint8))
