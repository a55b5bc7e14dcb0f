"""The images and texts a conversion is verified on: made in code, the same everywhere, one fault each in mind; and
drawings that the demo model knows, among which nearest neighbours mean something.

Pure numpy and Pillow. 16-bit, I and F images are missing on purpose: there clipsrv departs from the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112

#: Drawings of SIDE pixels in rows of ACROSS on one sheet, made by conversions/demo/sheet.py.
SHEET = Path(__file__).with_name("drawings.webp")
DRAWINGS, ACROSS, SIDE = 60, 10, 64


@dataclass(frozen=True)
class GoldenImage:
    """An encoded image; `drawn` tells that it is one of the demo model's drawings."""

    name: str
    blob: bytes
    drawn: bool = False


#: Empty, plain, capitals and contractions, digits, other scripts, emoji, odd blanks, and one that must be cut.
TEXTS = (
    "",
    "a photo of a cat",
    "A PHOTO of the dog's ball, isn't it?",
    "a red dress with 12 white buttons, size 38",
    "猫の写真",
    "un café à la crème — naïve façade",
    "🐱🐶 👩‍👩‍👧",
    "tabs\tand\nnew   lines",
    "&lt;b&gt; &amp; <html>",
    "a " * 200,
    "one two " * 1_250,
    "   ",
    "bell\x07, escape\x1b[31m, null\x00 and delete\x7f",
    "wardrobe",
    "an aerial view of a coastline at dusk",
)


@cache
def golden_images() -> tuple[GoldenImage, ...]:
    """About thirty encoded images: shapes, sizes on both sides of the crop, every 8-bit mode, three formats. Then the
    demo model's drawings."""
    make = _Maker()
    for name, width, height in (
        ("landscape", 640, 427),
        ("portrait", 427, 640),
        ("square", 500, 500),
        ("odd", 333, 517),
        ("large", 1601, 1201),
        ("crop-sized", 224, 224),
        ("one-pixel-over", 225, 337),
        ("smaller-than-crop", 97, 131),
        ("tiny", 5, 3),
        ("one-pixel", 1, 1),
        ("thin-upright", 1, 200),
        ("thin-flat", 200, 1),
        ("panorama", 1200, 150),
        ("tall", 150, 1200),
    ):
        make.add(name, width, height)
    for mode in ("1", "L", "LA", "P", "RGBA"):
        make.add(f"mode-{mode}", 301, 260, mode=mode)
    make.add("palette-transparent", 280, 320, mode="P", transparency=0)
    make.add("jpeg", 400, 300, format="JPEG", quality=90)
    make.add("jpeg-grey", 300, 400, mode="L", format="JPEG", quality=75)
    make.add("jpeg-cmyk", 320, 240, mode="CMYK", format="JPEG", quality=90)
    make.add("jpeg-progressive", 512, 384, format="JPEG", quality=60, progressive=True)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        make.add(f"jpeg-orientation-{orientation}", 360, 240, format="JPEG", quality=90, exif=exif.tobytes())
    make.add("webp", 400, 300, format="WEBP", quality=80)
    make.add("webp-lossless-alpha", 260, 260, mode="RGBA", format="WEBP", lossless=True)
    return (*make.images, *_drawings())


def _drawings() -> Iterator[GoldenImage]:
    with Image.open(SHEET) as sheet:
        for place in range(DRAWINGS):
            left, top = place % ACROSS * SIDE, place // ACROSS * SIDE
            file = BytesIO()
            sheet.crop((left, top, left + SIDE, top + SIDE)).save(file, "PNG")
            yield GoldenImage(f"drawing-{place}", file.getvalue(), drawn=True)


class _Maker:
    def __init__(self) -> None:
        self.images: list[GoldenImage] = []

    def add(self, name: str, width: int, height: int, *, mode: str = "RGB", format: str = "PNG", **save: Any) -> None:
        image = _in_mode(mode, _image(seed=len(self.images), width=width, height=height))
        file = BytesIO()
        image.save(file, format, **save)
        self.images.append(GoldenImage(name, file.getvalue()))


def _image(seed: int, width: int, height: int) -> Image.Image:
    """A few coloured waves, a disc and some grain: no two seeds alike, and no two places of one alike."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.empty((height, width, 3))
    for channel in range(3):
        across, down, phase = random.uniform((0.5, 0.5, 0), (9, 9, 2 * np.pi))
        pixels[:, :, channel] = 128 + 100 * np.sin(2 * np.pi * (across * x + down * y) + phase)
    centre_x, centre_y, radius = random.uniform(0.2, 0.8, 3)
    pixels[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (radius / 3) ** 2] = random.uniform(0, 255, 3)
    pixels += random.normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _in_mode(mode: str, image: Image.Image) -> Image.Image:
    if mode == "P":
        return image.quantize(64)
    if mode in ("LA", "RGBA"):
        image = image.convert(mode.removesuffix("A"))
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image
    return image.convert(mode)
