"""Images that a program holds: the pixels of their lossless file, turned once, and refused in words."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipsrv.errors import AspectRatioTooLargeError, EmptyImageError, ImageError, ImageTooLargeError, InvalidImageError
from clipsrv.images.decode import decode_image
from clipsrv.images.given import is_given, rgb_of
from tests.support.photos import drawn, encode, opened, same

MODES = ("RGB", "L", "LA", "RGBA", "P", "1", "I;16", "CMYK")


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_pillows_is_as_its_lossless_file(mode: str) -> None:
    image = Image.open(BytesIO(drawn(3))).convert(mode)
    file = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    assert same(rgb_of(image), decode_image(file))
    assert same(rgb_of(Image.open(BytesIO(file))), decode_image(file))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_it_once_whether_or_not_it_was_converted(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(opened().resize((40, 30)), "JPEG", exif=exif)
    turned = decode_image(file)
    assert same(rgb_of(Image.open(BytesIO(file))), turned)
    assert same(rgb_of(Image.open(BytesIO(file)).convert("RGB")), turned)
    as_stored = decode_image(file, apply_orientation=False)
    assert same(rgb_of(Image.open(BytesIO(file)), apply_orientation=False), as_stored)


def test_an_array_is_its_pixels() -> None:
    image = opened("flower.jpg").resize((50, 40))
    pixels = np.asarray(image)
    assert same(rgb_of(pixels), image)
    assert same(rgb_of(pixels[:, ::-1]), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert same(rgb_of(np.dstack([pixels, pixels[:, :, :1]])), image)
    grey = np.asarray(image.convert("L"))
    for flat in (grey, grey[:, :, None], grey.astype(np.uint16) * 257):
        assert same(rgb_of(flat), image.convert("L").convert("RGB"))


def test_the_image_given_stays_as_it_is() -> None:
    image = Image.open(BytesIO(drawn(3))).convert("P")
    image.info["transparency"] = 1
    before = image.copy()
    rgb_of(image)
    assert image.info == before.info
    assert same(image, before)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((20, 30, 3), np.float32),
        np.zeros((3, 20, 30), np.uint8),
        np.zeros((20, 30, 3), np.int64),
        np.zeros((20,), np.uint8),
        np.zeros((1, 20, 30, 3), np.uint8),
        np.array(["a"]),
    ],
    ids=lambda pixels: f"{pixels.dtype} {pixels.shape}",
)
def test_an_array_of_anything_else_is_refused_with_what_it_is(pixels: np.ndarray) -> None:
    with pytest.raises(InvalidImageError) as caught:
        rgb_of(pixels)
    assert str(pixels.shape) in caught.value.message


def test_what_has_no_pixel_or_too_long_a_side_is_refused() -> None:
    for empty in (np.zeros((0, 5, 3), np.uint8), Image.new("RGB", (0, 5))):
        with pytest.raises(EmptyImageError):
            rgb_of(empty)
    with pytest.raises(AspectRatioTooLargeError):
        rgb_of(np.zeros((1, 300, 3), np.uint8))
    with pytest.raises(ImageTooLargeError):
        rgb_of(np.zeros((200, 16_385), np.uint8))


def test_a_file_that_pillow_opened_and_cannot_read_to_its_end_is_an_image_error() -> None:
    whole = drawn(3, (400, 300))
    with pytest.raises(ImageError):
        rgb_of(Image.open(BytesIO(whole[: len(whole) // 2])))


def test_an_image_without_a_finite_value_is_refused() -> None:
    with pytest.raises(InvalidImageError):
        rgb_of(Image.fromarray(np.full((4, 4), np.nan, np.float32)))


def test_an_image_is_told_from_what_is_none() -> None:
    assert is_given(Image.new("L", (1, 1)))
    assert is_given(np.zeros((1, 1), np.uint8))
    assert not is_given(b"bytes")
