"""The table of what fast decoding changes has a row for every margin, and none of its figures where nothing changes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from benchmarks.drift import PREPROCESSINGS, rows
from clipsrv.specs import PreprocessSpec


def test_pixels_drift_less_the_further_above_the_resized_edge_the_jpeg_is_kept() -> None:
    blob, noise = BytesIO(), np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(blob, "JPEG")
    half = (0.5, 0.5, 0.5)
    table = [row.split("|") for row in rows("model", PreprocessSpec(64, 64, half, half), [blob.getvalue()], None)]
    assert [row[1:3] for row in table] == [[" model ", f" {margin} "] for margin in ("exact", 1, 2, 4)]
    assert {len(row) for row in table} == {10}
    one, two, four = (float(row[4]) for row in table[1:])
    assert one > two > four == 0


def test_every_known_way_of_making_images_ready_is_another() -> None:
    assert len({spec.id for spec in PREPROCESSINGS.values()}) == len(PREPROCESSINGS)
