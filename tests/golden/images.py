"""Images to compare preprocessings on: small files of every kind for the golden set, and random ones in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

#: Every 8-bit mode of Pillow that converts to RGB.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
LONGEST, MAX_ASPECT_RATIO = 4000, 200

_SIZES = {
    "landscape": (120, 80),
    "portrait": (80, 120),
    "square": (90, 90),
    "odd": (101, 67),
    "odd-portrait": (67, 101),
    "exact": (224, 224),
    "one-more": (225, 224),
    "one-more-portrait": (224, 225),
    "one-pixel": (1, 1),
    "height-1": (5, 1),
    "height-3": (7, 3),
    "width-3": (3, 7),
    "banner": (500, 100),
    "ribbon": (600, 5),
    "ribbon-portrait": (5, 600),
    "thread": (200, 1),
    "thread-portrait": (1, 200),
    "shrunk": (470, 320),
    "shrunk-portrait": (320, 470),
    "tower": (230, 1000),
}


def write_inputs(photo: Path, folder: Path) -> None:
    """Small files cut from one photograph: sizes and shapes, modes, formats, EXIF orientations, deep images."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(photo) as opened:
        whole = opened.convert("RGB")

    def save(image: Image.Image, name: str, **options: Any) -> None:
        image.save(folder / name, **options)

    for name, size in _SIZES.items():
        lossy = {"quality": 70} if min(size) > 5 else {}
        save(whole.resize(size), f"size-{name}.{'jpg' if lossy else 'png'}", **lossy)
    small = whole.resize((60, 44))
    fade = Image.linear_gradient("L").resize(small.size)
    with_alpha = small.copy()
    with_alpha.putalpha(fade)
    grey_with_alpha = small.convert("L")
    grey_with_alpha.putalpha(fade)
    palette = small.quantize(64)
    for mode in ("1", "L"):
        save(small.convert(mode), f"mode-{mode}.png")
    save(grey_with_alpha, "mode-LA.png")
    save(with_alpha, "mode-RGBA.png")
    save(with_alpha, "mode-RGBA.webp", lossless=True)
    save(palette, "mode-P.png")
    save(palette, "mode-P-one-transparent.png", transparency=3)
    save(palette, "mode-P-alpha.png", transparency=bytes(range(0, 256, 4)))
    save(small.convert("L").quantize(2), "mode-P-1-bit.png", bits=1)
    save(small, "mode-RGB-one-transparent.png", transparency=small.getpixel((0, 0)))
    save(small.convert("CMYK"), "mode-CMYK.tif")
    save(small.convert("CMYK"), "mode-CMYK.jpg", quality=80)
    save(small.convert("LAB"), "mode-LAB.tif")
    save(small.convert("YCbCr"), "mode-YCbCr.tif")
    save(small, "format.bmp")
    save(small, "format.webp", quality=60)
    save(palette, "format-animated.gif", save_all=True, append_images=[palette.rotate(90), palette.rotate(180)])
    save(palette, "format-transparent.gif", transparency=5)
    save(small, "format-progressive.jpg", quality=60, progressive=True)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(small, f"exif-{orientation}.jpg", quality=60, exif=exif)
    wide = np.asarray(small.convert("L"), np.float64) * 257 + np.arange(60)
    deep = np.clip(wide, 0, 65535).astype(np.uint16)
    save(Image.fromarray(deep), "deep-16.png")
    save(Image.fromarray(deep.astype(">u2")), "deep-16-big-endian.tif")
    save(Image.fromarray(deep.astype(np.int32) * 3 - 70_000), "deep-I.tif")
    save(Image.fromarray((wide / 1e5 - 0.3).astype(np.float32)), "deep-F.tif")


def random_image(rng: np.random.Generator) -> Image.Image:
    """An image of 1 to 4000 px a side, at most 1:200, of any 8-bit mode: noise, two levels or slow change."""
    longest = int(rng.integers(1, LONGEST + 1) if rng.random() < 0.5 else round(LONGEST ** rng.random()))
    shortest = max(1, round(longest / MAX_ASPECT_RATIO ** rng.random()), -(-longest // MAX_ASPECT_RATIO))
    size = (longest, shortest) if rng.random() < 0.5 else (shortest, longest)
    return make_image(size, str(rng.choice(MODES)), str(rng.choice(["noise", "two levels", "slow"])), rng)


def make_image(size: tuple[int, int], mode: str, kind: str, rng: np.random.Generator) -> Image.Image:
    """An image of the size and mode given; palettes are random and may have transparency."""
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    if kind == "slow":
        coarse = rng.integers(0, 256, (min(height, 9), min(width, 9), bands), np.uint8)
        layers = [Image.fromarray(coarse[:, :, band]).resize(size, Image.Resampling.BILINEAR) for band in range(bands)]
        values = np.dstack([np.asarray(layer) for layer in layers])
    else:
        values = np.frombuffer(rng.bytes(width * height * bands), np.uint8).reshape(height, width, bands)
        if kind == "two levels":  # overshoots the most, and is clipped
            values = np.where(values < 128, np.uint8(0), np.uint8(255))
    if mode == "1":
        return Image.fromarray(values[:, :, 0]).convert("1")
    image = Image.frombytes(mode, size, values.tobytes())
    if mode in {"P", "PA"}:
        image.putpalette(rng.bytes(768))
    if mode == "P" and rng.random() < 0.5:
        image.info["transparency"] = rng.bytes(256) if rng.random() < 0.5 else int(rng.integers(256))
    return image


def departed(image: Image.Image) -> Image.Image:
    """The image with both departures made, by arithmetic of its own: the processor may then have it."""
    image = ImageOps.exif_transpose(image)
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.floor(values / 257 + 0.5).astype(np.uint8))
    if image.mode in {"I", "F"}:
        values = values.astype(np.float64)
        low, high = np.nanmin(values), np.nanmax(values)
        return Image.fromarray(np.rint((values - low) / (high - low) * 255).astype(np.uint8))
    return image


def digest(array: NDArray[Any]) -> str:
    """sha256 of its bytes in order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
