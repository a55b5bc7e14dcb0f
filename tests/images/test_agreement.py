"""A resize that is not the installed Pillow's is left, and another Pillow's pixels have ids of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from clipsrv.config import Config
from clipsrv.images import agreement, resize
from clipsrv.images.preprocess import resize_and_crop
from clipsrv.server import lifecycle
from tests.support.model import SPEC, make_model

RNG = np.random.default_rng(7)
IMAGE = Image.fromarray(RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8))


@pytest.fixture
def looked_at_anew() -> Iterator[None]:
    """What was found out of this process's Pillow is forgotten, before the test and after it."""
    found = agreement.resize_is_pillows, agreement.pixels_of_pillow
    for each in found:
        each.cache_clear()
    yield
    for each in found:
        each.cache_clear()


def by_pillow() -> Image.Image:
    short = SPEC.shortest_edge
    long = short * 120 // 90
    left = (long - short) // 2
    return IMAGE.resize((long, short), Image.Resampling.BICUBIC).crop((left, 0, left + short, short))


def test_the_pillow_of_this_installation_is_the_one_that_ids_stand_for() -> None:
    assert agreement.resize_is_pillows()
    assert agreement.pixels_of_pillow() is None


@pytest.mark.usefixtures("looked_at_anew")
def test_a_compiled_resize_that_gives_other_pixels_is_left_and_ids_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = resize.Kernel(resize.FASTEST.along_rows, lambda *arguments: arguments[-1].fill(9))
    monkeypatch.setattr(resize, "FASTEST", wrong)
    model = make_model()
    assert model.preprocessing_id == model.manifest.preprocess.id
    np.testing.assert_array_equal(resize_and_crop(IMAGE, SPEC), np.asarray(by_pillow()))
    assert [text for text in lifecycle.warnings(Config(), []) if "compiled resize gives other pixels" in text]


@pytest.mark.usefixtures("looked_at_anew")
def test_another_pillow_gives_its_own_pixels_under_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Image.Image.resize

    def other(image: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
        return true(image, size, Image.Resampling.LANCZOS)

    monkeypatch.setattr(Image.Image, "resize", other)
    model = make_model()
    assert model.preprocessing_id != model.manifest.preprocess.id
    assert model.embedding_id != model.manifest.embedding_id("fp32", model.manifest.preprocess.id)
    np.testing.assert_array_equal(resize_and_crop(IMAGE, SPEC), np.asarray(by_pillow()))
    assert [text for text in lifecycle.warnings(Config(), []) if "another embedding_id" in text]
