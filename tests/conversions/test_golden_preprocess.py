"""clipsrv's pixels beside CLIPImageProcessor itself: random images of every 8-bit mode and shape, to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.images.rgb import to_rgb
from tests.golden.images import LONGEST, MAX_ASPECT_RATIO, MODES, make_image, write_inputs
from tests.golden.processor import PROCESSOR, SPEC, compare, describe, main, reference
from tests.support.photos import photo_path

GOLDEN = Path(__file__).parents[1] / "golden"


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """1 to 4000 px a side, at most 1:200, either way up."""
    longest = draw(st.integers(1, LONGEST))
    shortest = draw(st.integers(-(-longest // MAX_ASPECT_RATIO), longest))
    return (longest, shortest) if draw(st.booleans()) else (shortest, longest)


@settings(max_examples=60, deadline=None)
@given(sizes(), st.sampled_from(MODES), st.sampled_from(["noise", "two levels", "slow"]), st.integers(0, 2**32 - 1))
@example((1, 200), "RGB", "noise", 0)
@example((4000, 20), "RGB", "two levels", 0)
@example((20, 4000), "L", "two levels", 0)
@example((300, 1), "RGBA", "noise", 0)
@example((3, 300), "RGB", "noise", 0)
@example((300, 3), "RGB", "noise", 0)
@example((224, 224), "P", "noise", 0)
def test_pixels_and_values_equal_the_processors_to_the_bit(
    size: tuple[int, int], mode: str, kind: str, seed: int
) -> None:
    image = make_image(size, mode, kind, np.random.default_rng(seed))
    pixels, values = reference(image)
    rgb = to_rgb(image.copy())
    assert np.array_equal(resize_and_crop(rgb, SPEC), pixels)
    assert preprocess_image(rgb, SPEC).tobytes() == values.tobytes()


@pytest.mark.parametrize("height", [1, 3])
def test_the_processor_left_alone_misreads_an_image_of_height(height: int) -> None:
    """Why the reference names the channels' place: a row of 3 (or 1) pixels passes for colours."""
    image = make_image((300, height), "RGB", "noise", np.random.default_rng(0))
    pixels, _ = reference(image)
    try:
        alone = PROCESSOR(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    except ValueError:
        return
    assert alone.shape != (3, 224, 224) or not np.array_equal(alone.transpose(1, 2, 0), pixels)


def test_the_golden_rows_are_what_the_processor_gives_today() -> None:
    rows = json.loads((GOLDEN / "preprocess.json").read_text())["files"]
    assert {path.name: describe(path) for path in (GOLDEN / "preprocess").iterdir()} == rows


def test_the_script_makes_the_golden_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", str(photo_path("astronaut.png")), str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{len(list((GOLDEN / 'preprocess').iterdir()))} files\n"
    assert json.loads((tmp_path / "preprocess.json").read_text())["files"].keys() == {
        path.name for path in (GOLDEN / "preprocess").iterdir()
    }


def test_the_script_counts_what_differs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--cases", "5"]) == 0
    assert capsys.readouterr().out.startswith("5 cases, 0 differing")
    monkeypatch.setattr("tests.golden.processor.to_rgb", lambda image: ImageOps.invert(to_rgb(image)))
    assert compare(5)["differing"] > 0
    assert main(["--cases", "5"]) == 1


def test_orientation_one_to_eight_all_show_the_same_image(tmp_path: Path) -> None:
    """The eight files hold the same stored pixels: turned back by EXIF they must differ from one another."""
    write_inputs(photo_path("astronaut.png"), tmp_path)
    with Image.open(tmp_path / "exif-1.jpg") as first, Image.open(tmp_path / "exif-6.jpg") as sixth:
        assert np.array_equal(np.asarray(first), np.asarray(sixth))
    assert len({describe(tmp_path / f"exif-{number}.jpg")["pixels"] for number in range(1, 9)}) == 8
