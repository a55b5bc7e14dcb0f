"""Whatever holds an image (a path, bytes, Pillow, an array) to a model's pixels, for several threads at once."""

from __future__ import annotations

import os
import threading

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import BadImage, BadImagesError, ImageError
from clipsrv.images.budget import PixelBudget
from clipsrv.images.given import Given, is_given, rgb_of
from clipsrv.images.preprocess import preprocess_image
from clipsrv.models.model import Model
from clipsrv.settings import ImageLimits

Encoded = bytes | bytearray | memoryview
#: A path, an encoded image's bytes, one of Pillow's, or uint8 pixels (height, width, 3).
Image = str | os.PathLike[str] | Encoded | Given
#: float32 (3, S, S).
Pixels = NDArray[np.float32]


class ImageReader:
    """Shares `budget` and `pillow`, a lock, with other readers of the same model."""

    def __init__(
        self, model: Model, limits: ImageLimits, budget: PixelBudget, pillow: threading.Lock, *, failing: bool
    ) -> None:
        self._model, self._limits, self._budget = model, limits, budget
        self._reading, self._failing = pillow, failing

    def __call__(self, numbered: tuple[int, Image]) -> Pixels | Exception:
        """The pixels of an image, given with its place, or why there are none.

        Raises TypeError for what is no image at all; if `failing`, BadImagesError or OSError.
        """
        index, image = numbered
        if not is_given(image) and not isinstance(image, str | os.PathLike | Encoded):
            kind = type(image).__name__
            raise TypeError(f"images[{index}] is {kind}: give a path, bytes, an image of Pillow's or an array")
        try:
            return self._pixels(image)
        except ImageError as error:
            shown = f"images[{index}]" + (f" ({os.fspath(image)})" if isinstance(image, str | os.PathLike) else "")
            told = type(error)(f"{shown}: {error.message}", **error.details)
        except OSError as error:
            if self._failing:
                raise
            return error
        if self._failing:
            raise BadImagesError([BadImage(index, told)])
        return told

    def _pixels(self, image: Image) -> Pixels:
        if isinstance(image, str | os.PathLike):
            with open(image, "rb") as file:
                image = file.read(self._limits.max_bytes + 1)
        if isinstance(image, Encoded):
            return self._model.read_image(bytes(image), self._limits, self._budget)
        with self._reading:  # Pillow may still have to read it from its file, which two threads may not at once
            rgb = rgb_of(image, self._limits, apply_orientation=self._model.decoding.exif_orientation)
        return preprocess_image(rgb, self._model.manifest.preprocess)
