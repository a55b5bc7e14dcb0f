"""The part of an image that is asked for: a rectangle in the pixels of the upright image. Knows nothing of files."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from clipsrv.errors import CropOutsideImageError


class Region(NamedTuple):
    """In pixels, from the upper left corner: whatever whole numbers were asked for. `cut` says whether there is such a
    part."""

    left: int
    top: int
    width: int
    height: int

    def check(self, longest: int) -> None:
        """What can be told of an image whose longest side has so many pixels, however it is turned. Raises
        CropOutsideImageError."""
        if min(self.left, self.top, self.width - 1, self.height - 1) < 0:
            raise CropOutsideImageError(f"{self} is no part of an image: x and y count from 0, sides from 1.")
        if max(self.left + self.width, self.top + self.height) > longest:
            raise CropOutsideImageError(f"{self} is not inside the image, whose longest side has {longest:,} pixels.")

    def cut(self, image: Image.Image) -> Image.Image:
        """This part of `image`, in its mode. Raises CropOutsideImageError if it is not wholly inside."""
        self.check(max(image.size))
        right, bottom = self.left + self.width, self.top + self.height
        if right > image.width or bottom > image.height:
            message = f"{self} is not inside the image, which has {image.width}x{image.height} pixels, upright."
            raise CropOutsideImageError(message, width=image.width, height=image.height)
        return image if (self.width, self.height) == image.size else image.crop((self.left, self.top, right, bottom))

    def __str__(self) -> str:
        return "The crop " + str(list(self)) if max(map(abs, self)) < _SHOWN else "The crop"


class Cropped(NamedTuple):
    """An encoded image of which only a part is meant."""

    blob: bytes | memoryview
    region: Region


#: An encoded image, or a part of one.
Encoded = bytes | memoryview | Cropped

#: Numbers that are told back.
_SHOWN = 10**9
