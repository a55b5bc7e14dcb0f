"""Images hand their memory on to one another, and never what is in it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipsrv.images.decode import BLOCKS_PER_THREAD, decode_image, reuse_memory

core = Image.core  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    blocks = core.get_blocks_max()
    yield
    core.set_blocks_max(blocks)


def photo() -> bytes:
    """A JPEG of 12 megapixels."""
    file = BytesIO()
    Image.linear_gradient("L").resize((4000, 3000)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def gif_of_its_upper_half(side: int) -> bytes:
    """A GIF whose image covers the upper half of its screen, in the colour 200."""
    palette = bytes(level for grey in range(256) for level in (grey, 255 - grey, grey))
    image = Image.new("P", (side, side // 2), 200)
    image.putpalette(palette)
    file = BytesIO()
    image.save(file, "GIF", optimize=False)
    blob = file.getvalue()
    return blob[:6] + struct.pack("<HH", side, side) + blob[10:]


def test_the_next_photo_takes_the_memory_of_the_last() -> None:
    blob = photo()
    for threads, reused in ((0, False), (1, True)):
        reuse_memory(threads)
        decode_image(blob).close()
        core.reset_stats()
        decode_image(blob).close()
        assert (core.get_stats()["reused_blocks"] > 0) == reused


def test_no_more_is_kept_than_was_said() -> None:
    reuse_memory(2)
    for _ in range(3):
        images = [Image.new("RGB", (4000, 3000)) for _ in range(4)]
        del images
    assert core.get_stats()["blocks_cached"] == 2 * BLOCKS_PER_THREAD


def test_what_a_file_leaves_out_never_shows_another_image() -> None:
    """Rows that are not there must not be whatever lay in memory."""
    reuse_memory(2)
    blob = gif_of_its_upper_half(64)
    for _ in range(3):
        images = [Image.new("RGB", (64, 64), "white") for _ in range(2 * BLOCKS_PER_THREAD)]
        del images
        pixels = np.asarray(decode_image(blob))
        assert (pixels[:32, :, 0] == 200).all()
        assert (pixels[32:, :, 0] == 0).all()
