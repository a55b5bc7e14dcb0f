"""Pixels equal the golden set of CLIPImageProcessor to the bit.

The live comparison with transformers is in tests/conversions/test_golden_preprocess.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsrv.images import preprocess
from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.specs import PreprocessSpec

GOLDEN = Path(__file__).parents[1] / "golden"
ROWS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "preprocess.json").read_text())["files"]
SPEC = PreprocessSpec(
    shortest_edge=224,
    crop_size=224,
    image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711),
    rescale_factor=0.00392156862745098,
)


@pytest.mark.parametrize("name", ROWS)
def test_the_golden_image_gives_the_reference_pixels_and_values(name: str) -> None:
    image = decode_image((GOLDEN / "preprocess" / name).read_bytes())
    values = preprocess_image(image, SPEC)
    assert (values.shape, values.dtype) == ((3, 224, 224), np.dtype(np.float32))
    assert list(values[:, 0, 0]) == ROWS[name]["first"]
    assert digest(resize_and_crop(image, SPEC)) == ROWS[name]["pixels"]
    assert digest(values.astype("<f4")) == ROWS[name]["values"]


def test_the_golden_set_has_every_kind_of_image() -> None:
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


def test_a_crop_smaller_than_the_resized_image_is_its_centre() -> None:
    image = Image.radial_gradient("L").convert("RGB").resize((301, 203), Image.Resampling.NEAREST)
    whole = image.resize((int(256 * 301 / 203), 256), Image.Resampling.BICUBIC)
    left = (whole.width - 224) // 2
    cut = resize_and_crop(image, replace(SPEC, shortest_edge=256))
    assert np.array_equal(cut, np.asarray(whole)[16:240, left : left + 224])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(301, 203), (40, 900), (20, 20)])
def test_a_squashed_image_is_what_pillow_makes_of_it_whole(
    size: tuple[int, int], resample: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess, "COMPILED", compiled)
    image = Image.effect_noise(size, 80).convert("RGB")
    spec = replace(SPEC, resize="squash", resample=resample)
    whole = image.resize((224, 224), Image.Resampling[resample.upper()])
    assert np.array_equal(resize_and_crop(image, spec), np.asarray(whole))


@pytest.mark.parametrize(("rule", "offsets"), [("floor", [0, 0, 1, 1, 2]), ("round", [0, 0, 1, 2, 2])])
def test_half_a_pixel_goes_where_the_rule_says(rule: str, offsets: list[int]) -> None:
    """As transformers' center_crop, and as torchvision's: int(round(...)) rounds half to even."""
    found = []
    for over in range(5):
        columns = np.broadcast_to(np.arange(224 + over, dtype=np.uint8)[None, :, None], (224, 224 + over, 3))
        cut = resize_and_crop(Image.fromarray(np.ascontiguousarray(columns)), replace(SPEC, crop_offset=rule))
        found.append(int(cut[0, 0, 0]))
    assert found == offsets


@pytest.mark.parametrize("name", ROWS)
def test_without_the_compiled_resize_pixels_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "COMPILED", False)
    image = decode_image((GOLDEN / "preprocess" / name).read_bytes())
    assert digest(resize_and_crop(image, SPEC)) == ROWS[name]["pixels"]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
