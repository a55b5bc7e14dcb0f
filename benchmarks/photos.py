"""Distinct photographic images of a wanted size and format, made from the photos in scikit-image and scikit-learn.

Knows nothing of servers. Equal arguments give equal bytes; what was made is kept in a folder.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_SOURCES = {
    "skimage": ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "retina.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
}
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
#: A source is never enlarged further than this: more is smoother, and cheaper to decode, than a photo is.
_MOST_ENLARGED = 2.0
#: Standard deviation, in levels, of the noise that a camera's sensor would have left.
_NOISE = 2.0


@dataclass(frozen=True)
class PhotoKind:
    """What to make: `format` is Pillow's name; JPEG and WebP with `quality`, JPEG with 4:2:0 chroma."""

    width: int
    height: int
    format: str = "JPEG"
    quality: int = 88

    @property
    def name(self) -> str:
        return f"{self.width}x{self.height} {self.format}"


def make_images(kind: PhotoKind, count: int, cache: Path) -> list[bytes]:
    """`count` encoded images, no two alike; kept in `cache` for the next run."""
    cache.mkdir(parents=True, exist_ok=True)
    blobs = []
    for index in range(count):
        path = cache / f"{kind.width}x{kind.height}-{kind.quality}-{index}.{kind.format.lower()}"
        if not path.exists():
            pixels = _compose(kind.width, kind.height, np.random.default_rng([kind.width, index]))
            partial = path.with_suffix(".partial")
            options = {"subsampling": "4:2:0"} if kind.format == "JPEG" else {}
            Image.fromarray(pixels).save(partial, kind.format, quality=kind.quality, **options)
            partial.rename(path)
        blobs.append(path.read_bytes())
    return blobs


def _compose(width: int, height: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """An image filled with cut-outs of the sources: one where it is small enough, a mosaic where it is larger."""
    canvas = np.empty((height, width, 3), np.uint8)
    tiles_across, tiles_down = -(-width // 1280), -(-height // 960)
    tile_width, tile_height = -(-width // tiles_across), -(-height // tiles_down)
    for top in range(0, height, tile_height):
        for left in range(0, width, tile_width):
            size = min(tile_width, width - left), min(tile_height, height - top)
            canvas[top : top + size[1], left : left + size[0]] = _tile(size, random)
    noisy = canvas + random.normal(0, _NOISE, canvas.shape).astype(np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _tile(size: tuple[int, int], random: np.random.Generator) -> NDArray[np.uint8]:
    sources = _sources()
    source = sources[random.integers(len(sources))]
    fit = max(size[0] / source.width, size[1] / source.height)
    scale = max(fit, min(fit * random.uniform(1.0, 1.3), _MOST_ENLARGED))
    cut = size[0] / scale, size[1] / scale
    left, top = random.uniform(0, source.width - cut[0]), random.uniform(0, source.height - cut[1])
    tile = source.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + cut[0], top + cut[1]))
    if random.random() < 0.5:
        tile = ImageOps.mirror(tile)
    return np.asarray(tile)


@lru_cache
def _sources() -> list[Image.Image]:
    """The photos, found without importing the packages, which would take seconds."""
    found = []
    for package, names in _SOURCES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit("The images come from two packages: pip install scikit-image scikit-learn")
        folder = Path(spec.origin).parent / _FOLDERS[package]
        found += [Image.open(folder / name).convert("RGB") for name in names]
    return found
