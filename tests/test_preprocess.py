"""Pixels equal the golden set of CLIPImageProcessor to the bit, and the window's arithmetic equals Pillow's own.

The live comparison with transformers is in tests/conversions/test_golden_preprocess.py.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsrv.image import decode_image
from clipsrv.manifest import PreprocessSpec
from clipsrv.preprocess import _Window, preprocess_image, resize_and_crop, resize_window

GOLDEN = Path(__file__).parent / "golden"
ROWS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "preprocess.json").read_text())["files"]
SPEC = PreprocessSpec(
    shortest_edge=224,
    crop_size=224,
    image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711),
    rescale_factor=0.00392156862745098,
)


@pytest.mark.parametrize("name", ROWS)
def test_the_golden_picture_gives_the_reference_pixels_and_values(name: str) -> None:
    image = decode_image((GOLDEN / "preprocess" / name).read_bytes())
    values = preprocess_image(image, SPEC)
    assert (values.shape, values.dtype) == ((3, 224, 224), np.float32)
    assert list(values[:, 0, 0]) == ROWS[name]["first"]
    assert digest(resize_and_crop(image, 224, 224)) == ROWS[name]["pixels"]
    assert digest(values.astype("<f4")) == ROWS[name]["values"]


def test_the_golden_set_has_every_kind_of_picture() -> None:
    modes = {row["mode"] for row in ROWS.values()}
    assert modes >= {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I;16B", "I", "F"}
    assert {row["orientation"] for row in ROWS.values()} == set(range(1, 9))
    sizes = [row["size"] for row in ROWS.values()]
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert [1, 200] in sizes


def test_values_are_written_where_the_caller_says() -> None:
    image = Image.linear_gradient("L").convert("RGB")
    batch = np.zeros((2, 3, 224, 224), np.float32)
    assert preprocess_image(image, SPEC, out=batch[1]) is not None
    assert np.array_equal(batch[1], preprocess_image(image, SPEC))
    assert not batch[0].any()


def test_a_crop_smaller_than_the_resized_picture_is_its_centre() -> None:
    image = Image.radial_gradient("L").convert("RGB").resize((301, 203), Image.Resampling.NEAREST)
    whole = image.resize((int(256 * 301 / 203), 256), Image.Resampling.BICUBIC)
    left = (whole.width - 224) // 2
    assert np.array_equal(resize_and_crop(image, 256, 224), np.asarray(whole)[16:240, left : left + 224])


def noise(width: int, height: int, seed: int, *, two_levels: bool) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(np.where(values < 128, np.uint8(0), np.uint8(255)) if two_levels else values)


def assert_window_equals_pillow(image: Image.Image, new_size: tuple[int, int], offset: tuple[int, int]) -> None:
    size = min(new_size[0] - offset[0], new_size[1] - offset[1], 40)
    left, top = offset
    whole = np.asarray(image.resize(new_size, Image.Resampling.BICUBIC))
    assert np.array_equal(resize_window(image, new_size, offset, size), whole[top : top + size, left : left + size])


sides = st.integers(1, 300)


@settings(max_examples=300, deadline=None)
@given(sides, sides, sides, sides, st.floats(0, 1), st.floats(0, 1), st.integers(0, 99), st.booleans())
@example(300, 300, 20, 250, 0.5, 0.5, 0, True)
@example(300, 300, 250, 20, 0.5, 0.5, 0, True)
@example(1, 300, 10, 200, 0.5, 0.5, 0, True)
def test_a_window_equals_the_same_part_of_the_whole_resized_by_pillow(
    width: int, height: int, new_width: int, new_height: int, across: float, down: float, seed: int, two_levels: bool
) -> None:
    offset = round(across * (new_width - 1)), round(down * (new_height - 1))
    image = noise(width, height, seed, two_levels=two_levels)
    assert_window_equals_pillow(image, (new_width, new_height), offset)


@pytest.mark.parametrize("new_height", range(100, 300, 8))
def test_the_order_of_passes_turns_where_pillow_turns_it(new_height: int) -> None:
    """Around 2 * (width - new_width) == height - new_height; a Pillow that decides otherwise fails here."""
    width, new_width, height = 200, 140, 300
    image = noise(width, height, new_height, two_levels=True)
    for near in (new_height, 300 - 2 * (width - new_width), 300 - 2 * (width - new_width) + 1):
        assert_window_equals_pillow(image, (new_width, near), (0, 0))


def test_the_order_of_passes_shows_in_the_pixels() -> None:
    """Otherwise the tests above would not notice a change of order."""
    image = noise(200, 300, 1, two_levels=True)
    columns, rows, picture = _Window(200, 140, 0, 140), _Window(300, 100, 0, 100), np.asarray(image, np.int32)
    rows_first = columns.apply(rows.apply(picture, axis=0), axis=1)
    columns_first = rows.apply(columns.apply(picture, axis=1), axis=0)
    assert not np.array_equal(rows_first, columns_first)
    assert np.array_equal(rows_first, np.asarray(image.resize((140, 100), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize(("width", "height"), [(1, 200), (200, 1), (4000, 20), (20, 4000)])
def test_a_long_thin_picture_makes_no_giant_intermediate(width: int, height: int) -> None:
    """The whole resized picture would take 40 MB. Pillow's memory is not Python's: the process is measured."""
    program = (
        "import resource; from PIL import Image; from clipsrv.preprocess import resize_and_crop\n"
        "resize_and_crop(Image.new('RGB', (800, 300)), 224, 224)\n"
        f"image = Image.new('RGB', ({width}, {height}))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert resize_and_crop(image, 224, 224).shape == (224, 224, 3)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 12 * 2**20


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
