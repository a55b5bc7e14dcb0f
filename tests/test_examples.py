"""examples/ holds what tests/support/drawings.py draws, and small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.drawings import drawings, file_name

FOLDER = Path(__file__).parents[1] / "examples"


def test_the_examples_are_the_drawings() -> None:
    drawn = {file_name(name): image for name, image in drawings().items()}
    assert {path.name for path in FOLDER.iterdir()} == set(drawn)
    for name, image in drawn.items():
        with Image.open(FOLDER / name) as shipped:
            assert np.array_equal(np.asarray(shipped), np.asarray(image)), (
                f"{name}: write it with python -m tests.support.drawings"
            )


def test_together_they_are_smaller_than_one_photo() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 100_000
