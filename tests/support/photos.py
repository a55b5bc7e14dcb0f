"""Images to send: real photographs, as two wheels carry them, cuttings of them, and drawings."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

#: Landscape, portrait and square; JPEG and PNG. (name, width, height)
NAMES = (
    *("china.jpg", "flower.jpg"),
    *("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png"),
    *("motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)


@cache
def photo(name: str) -> bytes:
    """The file's bytes. The packages are only located, not imported: that would take seconds."""
    return photo_path(name).read_bytes()


def photo_path(name: str) -> Path:
    for package, folder in (("sklearn", "datasets/images"), ("skimage", "data")):
        spec = find_spec(package)
        assert spec is not None, f"{package} is missing: pip install '.[test]'"
        for root in spec.submodule_search_locations or ():
            if (path := Path(root, folder, name)).is_file():
                return path
    raise FileNotFoundError(name)


def opened(name: str = "china.jpg") -> Image.Image:
    """A photograph, decoded to RGB."""
    with Image.open(BytesIO(photo(name))) as image:
        return image.convert("RGB")


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def same(one: Image.Image | None, other: Image.Image | None) -> bool:
    """Whether two images have the same mode and pixels."""
    assert one is not None
    assert other is not None
    return one.mode == other.mode and np.array_equal(np.asarray(one), np.asarray(other))


@cache
def cuttings(count: int, size: tuple[int, int] = (80, 60)) -> tuple[bytes, ...]:
    """`count` JPEG files of different content, cut from the photographs one beside the other."""
    found: list[bytes] = []
    width, height = size
    for name in NAMES:
        whole = opened(name)
        for top in range(0, whole.height - height, 2 * height):
            for left in range(0, whole.width - width, 2 * width):
                cut = whole.crop((left, top, left + width, top + height))
                if np.ptp(np.asarray(cut), axis=(0, 1)).min() > 60:  # the sky looks the same everywhere
                    found.append(encode(cut, "JPEG", quality=90))
                if len(found) == count:
                    return tuple(found)
    raise ValueError(f"the photographs give {len(found)} cuttings, not {count}")


def drawn(seed: int = 0, size: tuple[int, int] = (40, 30), form: str = "PNG", mode: str = "RGB") -> bytes:
    """An encoded image of four random colours, the same for the same seed."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return encode(Image.fromarray(corners).resize(size, Image.Resampling.NEAREST).convert(mode), form)
