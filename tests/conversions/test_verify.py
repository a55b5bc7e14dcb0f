"""The judgement on a conversion, and the images it is made on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clipsrv.images.decode import decode_image
from clipsrv.runtime.vectors import Vectors
from conversions.errors import ParityError
from conversions.golden import TEXTS, golden_images
from conversions.verify import LIMITS, Parity, as_json, as_text, compare, from_json, judge


def unit(rows: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, 16)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def test_equal_vectors_have_no_error() -> None:
    vectors = unit(5)
    parity = compare(vectors, vectors, 0)
    assert (parity.worst_component, parity.relative_error, parity.samples) == (0, 0, 5)
    assert parity.worst_cosine == pytest.approx(1, abs=1e-6)
    assert parity.neighbours_kept == 1


def test_neighbours_kept_is_the_share_of_the_ten_nearest_that_stay_so() -> None:
    theirs = np.repeat(np.eye(2, 16, dtype=np.float32), 11, axis=0) + 0.01 * unit(22)  # two groups of eleven
    ours = theirs.copy()
    ours[[0, 11]] = theirs[[11, 0]]
    # The two that change places lose all ten, the twenty others one each.
    assert compare(ours, theirs, 0).neighbours_kept == pytest.approx(180 / 220)


def test_neighbours_are_looked_for_among_the_rows_chosen_only() -> None:
    theirs = unit(30)
    ours = theirs.copy()
    ours[:10] = unit(10, seed=1)
    chosen = np.arange(30) >= 10
    assert compare(ours, theirs, 0).neighbours_kept < 0.9
    assert compare(ours, theirs, 0, neighbours=chosen).neighbours_kept == 1


def test_the_error_is_measured_against_the_mean_distance_between_originals() -> None:
    theirs = np.eye(3, dtype=np.float32)  # every pair lies sqrt(2) apart
    ours = theirs.copy()
    ours[1] = [0.0, np.cos(0.1), np.sin(0.1)]
    parity = compare(ours, theirs, 0)
    assert parity.worst_component == pytest.approx(np.sin(0.1), rel=1e-6)
    assert parity.worst_cosine == pytest.approx(np.cos(0.1), rel=1e-6)
    assert parity.relative_error == pytest.approx(2 * np.sin(0.05) / np.sqrt(2), rel=1e-5)


def test_close_originals_make_a_small_difference_count() -> None:
    """All images alike to 0.1 %: a cosine of 0.999999 says nothing, the relative error does."""
    theirs = np.ones((4, 16), np.float32) / 4 + 1e-3 * unit(4)
    ours = np.roll(theirs, 1, axis=0)
    parity = compare(ours, theirs, 0)
    assert parity.worst_cosine > 0.999
    assert parity.relative_error > 0.5
    with pytest.raises(ParityError):
        judge({"vision": {"fp32": parity}, "text": {}})


GOOD = Parity(
    worst_component=1e-6, worst_cosine=1.0, relative_error=1e-5, neighbours_kept=1.0, samples=9, differing_inputs=0
)


@pytest.mark.parametrize(
    "bad",
    [
        {"worst_component": 1.01e-4},
        {"relative_error": 0.0101},
        {"differing_inputs": 1},
        {"worst_component": float("nan")},
    ],
)
def test_each_limit_of_fp32_decides(bad: dict[str, float]) -> None:
    judge({"vision": {"fp32": GOOD}, "text": {"fp32": GOOD}})
    table = {"vision": {"fp32": GOOD}, "text": {"fp32": Parity(**{**vars(GOOD), **bad})}}
    with pytest.raises(ParityError, match="text fp32"):
        judge(table)
    assert "TOO FAR" in as_text(table)


def test_the_table_survives_the_manifest() -> None:
    table = {"vision": {"fp32": GOOD}, "text": {"fp32": GOOD}}
    assert from_json(as_json(table)) == table
    assert set(LIMITS) >= {"fp32", "fp16"}


def test_golden_images_are_the_same_each_time_and_all_different() -> None:
    first, second = golden_images(), golden_images.__wrapped__()
    assert first == second
    assert len({image.blob for image in first}) == len(first) == len({image.name for image in first})


def test_golden_images_cover_shapes_modes_and_formats() -> None:
    opened = {image.name: Image.open(io.BytesIO(image.blob)) for image in golden_images()}
    assert {one.format for one in opened.values()} == {"PNG", "JPEG", "WEBP"}
    assert {one.mode for one in opened.values()} == {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"}
    sizes = [one.size for one in opened.values()]
    assert {(1, 1), (1, 200), (200, 1)} <= set(sizes)
    assert any(width < height for width, height in sizes)
    assert any(max(size) < 224 for size in sizes)
    assert any(width % 2 and height % 2 for width, height in sizes)


def test_sixty_drawings_of_the_demo_model_are_among_them() -> None:
    drawn = [Image.open(io.BytesIO(image.blob)) for image in golden_images() if image.drawn]
    assert {(one.size, one.mode) for one in drawn} == {((64, 64), "RGB")}
    assert len(drawn) == 60
    assert all(len(one.getcolors(64 * 64) or []) > 10 for one in drawn), "an empty place on the sheet"


def test_every_golden_image_is_within_the_servers_limits() -> None:
    for image in golden_images():
        assert decode_image(image.blob).mode == "RGB"


def test_golden_texts_cover_the_empty_one_and_one_that_is_cut() -> None:
    assert "" in TEXTS
    assert any(len(text.split()) > 77 for text in TEXTS)
