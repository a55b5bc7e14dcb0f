"""An image that was refused leaves nothing behind, even while the cyclic collector does not run."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from clipsrv.errors import ImageError
from clipsrv.settings import ImageLimits
from tests.support.model import make_model
from tests.support.photos import drawn

GOOD = drawn(1, size=(400, 300))
JPEG = drawn(1, size=(400, 300), form="JPEG")
REFUSED = {
    "empty": b"",
    "not an image": b"nothing" * 100,
    "another format": b"%PDF-1.7" + b"x" * 100,
    "a cut header": GOOD[:20],
    "cut pixels": GOOD[: len(GOOD) // 2],
    "a cut JPEG": JPEG[: len(JPEG) // 2],
    "damaged pixels": GOOD[:60] + bytes(100) + GOOD[160:],
    "too large": drawn(1, size=(40, 500)),
}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_image_is_let_go_with_its_error(name: str) -> None:
    model, refused = make_model(), list[str]()
    blob = np.frombuffer(REFUSED[name], np.uint8).copy()
    held = weakref.ref(blob)
    with suppress(ImageError):
        refused.append("begun")
        model.read_image(blob.data, ImageLimits(max_side=450))
        refused.clear()
    assert refused
    del blob
    assert held() is None
