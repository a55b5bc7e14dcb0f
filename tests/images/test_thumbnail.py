"""Thumbnails: small, upright, and made of nothing but an image that may be used."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from clipsrv.errors import ImageError
from clipsrv.images.thumbnail import thumbnail
from clipsrv.settings import ImageLimits
from tests.support.photos import drawn, encode, opened


def test_it_is_a_jpeg_within_the_side_upright_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    blob = encode(opened().resize((640, 320)), "JPEG", exif=exif)
    with Image.open(BytesIO(thumbnail(blob, 100))) as small:
        assert (small.format, small.size, dict(small.getexif())) == ("JPEG", (50, 100), {})


def test_what_is_small_stays_as_large_as_it_is() -> None:
    with Image.open(BytesIO(thumbnail(drawn(1, (40, 30), mode="RGBA"), 100))) as small:
        assert small.size == (40, 30)


def test_what_may_not_be_used_has_none() -> None:
    with pytest.raises(ImageError):
        thumbnail(b"nothing", 100)
    with pytest.raises(ImageError):
        thumbnail(drawn(1, (40, 30)), 100, ImageLimits(max_pixels=100))
