"""Bytes to RGB: every format and mode, the two departures from the reference, and refusal of what is bad or too large.

Golden pixels of the same files are in tests/test_preprocess.py.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import traceback
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clipsrv.errors import (
    AspectRatioTooLargeError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    InvalidImageError,
    NotAnImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)
from clipsrv.images.decode import decode_image
from clipsrv.images.formats import FORMATS
from clipsrv.images.open import open_image
from clipsrv.images.rgb import to_rgb
from clipsrv.settings import ImageLimits
from tests.support.photos import encode, opened, photo, same

SMALL = opened("rocket.jpg").resize((60, 44))
ORIENTATION = 0x0112


@pytest.mark.parametrize("format", FORMATS)
def test_every_accepted_format_is_decoded(format: str) -> None:
    image = decode_image(encode(SMALL, format))
    assert (image.mode, image.size) == ("RGB", SMALL.size)
    difference = np.abs(np.asarray(image, np.int16) - np.asarray(SMALL, np.int16))
    assert difference.mean() < 10


def test_a_memoryview_is_as_good_as_bytes() -> None:
    assert decode_image(memoryview(photo("rocket.jpg"))).size == (640, 427)


def test_the_first_frame_of_an_animation_counts() -> None:
    second = SMALL.transpose(Image.Transpose.ROTATE_180)
    blob = encode(SMALL, "WEBP", lossless=True, save_all=True, append_images=[second])
    assert same(decode_image(blob), SMALL)


def test_a_phones_stereo_jpeg_is_a_jpeg() -> None:
    blob = encode(SMALL, "MPO", save_all=True, append_images=[SMALL], exif=oriented(6))
    assert decode_image(blob).size == (44, 60)


def test_a_phones_heic_is_upright_whatever_its_exif_says() -> None:
    blob = encode(SMALL, "HEIF", exif=oriented(6).tobytes())
    assert decode_image(blob).size == decode_image(blob, apply_orientation=False).size == (44, 60)


def test_without_its_extra_heic_is_refused_by_name() -> None:
    program = """
import sys
sys.modules["pillow_heif"] = None
from clipsrv.images.decode import decode_image
decode_image(bytes(4) + b"ftypheic" + bytes(100))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "UnsupportedImageFormatError: The image looks like HEIC; accepted are JPEG, PNG" in done.stderr
    assert "HEIC is read where the package pillow-heif is installed." in done.stderr


# --- departures from the reference ---


def test_16_bits_are_scaled_so_that_white_stays_white_and_black_black() -> None:
    levels = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 254, 255, 255]
    for dtype, format in (("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF")):
        image = decode_image(encode(Image.fromarray(levels.astype(dtype)), format))
        assert np.asarray(image)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.int32, -70_000, 2_000_000), (np.float32, -0.25, 0.75)])
def test_the_range_of_an_image_without_a_natural_one_becomes_0_to_255(dtype: Any, low: float, high: float) -> None:
    values: np.ndarray = np.linspace(low, high, 256).astype(dtype).reshape(16, 16)
    assert np.asarray(decode_image(encode(Image.fromarray(values), "TIFF")))[:, :, 1].ravel().tolist() == list(
        range(256)
    )


def test_a_plain_image_without_a_range_is_black() -> None:
    assert not np.asarray(to_rgb(Image.new("F", (4, 3), 7.5))).any()


def test_values_that_are_not_finite_count_as_the_lowest() -> None:
    values = np.array([[np.nan, -np.inf, np.inf, -1, 1]], np.float32)
    assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 0, 0, 255]


def test_an_image_without_one_finite_value_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="no finite pixel"):
        decode_image(encode(Image.new("F", (4, 3), float("nan")), "TIFF"))


def test_the_reference_would_make_16_bits_a_white_rectangle() -> None:
    """Why clipsrv departs from it."""
    values = np.arange(300, 65000, 100, dtype=np.uint16)[None]
    assert np.asarray(Image.fromarray(values.astype(np.int32)).convert("RGB")).min() == 255
    assert np.ptp(np.asarray(to_rgb(Image.fromarray(values)))) > 240


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_unless_told_otherwise(orientation: int) -> None:
    blob = encode(SMALL, "PNG", exif=oriented(orientation))
    with Image.open(BytesIO(blob)) as image:
        assert same(decode_image(blob), ImageOps.exif_transpose(image))
    assert same(decode_image(blob, apply_orientation=False), SMALL)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"garbage!", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"MM"])
def test_a_damaged_exif_block_says_nothing_about_orientation(format: str, exif: bytes) -> None:
    blob = encode(SMALL, format, exif=b"Exif\0\0" + exif)
    assert same(decode_image(blob), decode_image(encode(SMALL, format)))


# --- transparency ---


@pytest.mark.parametrize("transparency", [3, bytes(range(64))])
def test_transparency_of_a_palette_is_dropped(transparency: int | bytes) -> None:
    palette = SMALL.quantize(64)
    assert same(decode_image(encode(palette, transparency=transparency)), palette.convert("RGB"))


def test_transparency_outside_the_palette_hurts_nobody() -> None:
    image = SMALL.convert("L")
    image.info["transparency"] = (1, 2, 3)
    assert to_rgb(image).mode == "RGB"


# --- fast decoding ---


def test_fast_decoding_keeps_both_sides_at_least_as_long_as_asked() -> None:
    blob = encode(opened("retina.jpg"), "JPEG")  # 1411x1411
    assert decode_image(blob, reduce_to=300).size == (353, 353)
    assert decode_image(blob, reduce_to=1000).size == (1411, 1411)
    assert decode_image(encode(SMALL), reduce_to=5).size == SMALL.size


# --- limits ---


def test_an_empty_image_is_said_to_be_empty() -> None:
    with pytest.raises(EmptyImageError, match="0 bytes"):
        decode_image(b"")


def test_bytes_are_limited() -> None:
    blob = encode(SMALL)
    assert decode_image(blob, ImageLimits(max_bytes=len(blob)))
    with pytest.raises(ImageTooLargeError, match=f"at most {len(blob) - 1:,}") as caught:
        decode_image(blob, ImageLimits(max_bytes=len(blob) - 1))
    assert caught.value.details == {"limit": len(blob) - 1}


def test_pixels_are_limited_by_kind() -> None:
    limits = ImageLimits(max_pixels=1000, max_canvas_pixels=500, max_deep_pixels=250)
    deep = Image.fromarray(np.zeros((16, 16), np.uint16))
    deep_colour = BytesIO(png(20, 20, depth=16, colour=2))
    for blob, limit in (
        (encode(Image.new("RGB", (40, 26))), 1000),
        (encode(Image.new("RGB", (40, 26)), "JPEG"), 1000),
        (encode(Image.new("RGB", (25, 21)), "GIF"), 500),
        (encode(Image.new("RGB", (25, 21)), "WEBP"), 500),
        (encode(deep, "PNG"), 250),
        (encode(deep, "TIFF"), 250),
        (deep_colour.getvalue(), 250),
    ):
        with pytest.raises(ImageTooLargeError, match=f"at most {limit:,}") as caught:
            decode_image(blob, limits)
        assert caught.value.details == {"limit": limit}
    assert decode_image(encode(Image.new("RGB", (40, 25))), limits)
    assert decode_image(encode(Image.new("RGB", (25, 20)), "GIF"), limits)


def test_sides_are_limited() -> None:
    with pytest.raises(ImageTooLargeError, match=r"16385x100.*at most 16,384 a side"):
        decode_image(png(16_385, 100))


def test_the_aspect_ratio_is_limited_either_way() -> None:
    for size in ((201, 1), (1, 201)):
        with pytest.raises(AspectRatioTooLargeError, match="longer than 1:200"):
            decode_image(png(*size))
    assert decode_image(encode(Image.new("RGB", (200, 1)))).size == (200, 1)


def test_what_pillow_itself_takes_for_a_bomb_is_too_large() -> None:
    with pytest.raises(ImageTooLargeError, match="at most 50,000,000"):
        decode_image(png(16_000, 16_000))


def test_more_pixels_than_pillow_would_take_can_be_allowed() -> None:
    """Not decoded: the image would take a gigabyte."""
    assert open_image(png(16_000, 12_000), ImageLimits(max_pixels=200_000_000)).cost == 192_000_000


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_tiny_file_that_claims_a_large_canvas_costs_nothing(disposal: int) -> None:
    """Pillow allocates a GIF's first frame while opening it, where the header cannot be judged yet."""
    program = (
        "import resource, sys; from clipsrv.errors import ImageTooLargeError\n"
        "from clipsrv.images.decode import decode_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode_image(sys.stdin.buffer.read())\n"
        "except ImageTooLargeError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", program]
    grown = subprocess.run(run, input=gif(13_000, 13_000, disposal), capture_output=True, check=True).stdout
    assert int(grown) * (1 if sys.platform == "darwin" else 1024) < 30 * 2**20


def test_a_heic_that_claims_fewer_pixels_than_it_holds_is_refused() -> None:
    honest, size = encode(Image.new("RGB", (640, 480)), "HEIF"), struct.pack(">II", 640, 480)
    assert size in honest
    with pytest.raises(InvalidImageError):
        decode_image(honest.replace(size, struct.pack(">II", 16, 16)))


# --- what decoding costs ---


def test_an_image_costs_its_pixels_and_a_deep_one_twice() -> None:
    assert open_image(encode(SMALL)).cost == 60 * 44
    assert open_image(encode(Image.fromarray(np.zeros((44, 60), np.uint16)))).cost == 2 * 60 * 44


def test_a_jpeg_decoded_smaller_costs_less_unless_it_is_progressive() -> None:
    photo = opened("retina.jpg")  # 1411x1411
    assert open_image(encode(photo, "JPEG")).cost == 1411**2
    assert open_image(encode(photo, "JPEG"), reduce_to=300).cost == 353**2
    assert open_image(encode(photo, "JPEG", progressive=True), reduce_to=300).cost == 1411**2


def test_who_keeps_the_error_of_an_image_keeps_neither_its_pixels_nor_its_decoder() -> None:
    blob = encode(opened("rocket.jpg"), "JPEG")
    with pytest.raises(TruncatedImageError) as caught:
        decode_image(blob[: len(blob) // 2])
    assert caught.value.__context__ is None
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb)]
    held = [value for frame in frames for value in frame.f_locals.values()]
    assert not any(isinstance(value, Image.Image) for value in held)


# --- damage ---


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "HEIF"])
def test_a_file_cut_in_the_middle_is_truncated(format: str) -> None:
    blob = encode(opened("rocket.jpg"), format)
    with pytest.raises(TruncatedImageError, match="ends too early"):
        decode_image(blob[: len(blob) // 2])


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_a_file_whose_header_is_cut_off_says_so(format: str) -> None:
    with pytest.raises(InvalidImageError, match=r"begins like \w+ but its header is damaged or cut off"):
        decode_image(encode(SMALL, format)[:13])


def test_a_jpeg_whose_header_is_cut_off_is_truncated() -> None:
    with pytest.raises(TruncatedImageError):
        decode_image(encode(SMALL, "JPEG")[:13])


def test_damage_in_the_middle_is_not_decoded() -> None:
    blob = bytearray(encode(SMALL, "PNG"))
    pixels = blob.index(b"IDAT") + 30
    blob[pixels : pixels + 30] = bytes(30)
    with pytest.raises(InvalidImageError, match="damaged"):
        decode_image(bytes(blob))


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf\r\n  <?xml version='1.0'?><svg/>", "SVG or another XML document"),
        (b"\0\0\x01\0\x01\0", "ICO"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"8BPS\0\x01", "Photoshop"),
    ],
)
def test_formats_that_never_run_are_named(head: bytes, format: str) -> None:
    with pytest.raises(UnsupportedImageFormatError, match="accepted are JPEG, PNG") as caught:
        decode_image(head + bytes(100))
    assert caught.value.details == {"format": format}


@pytest.mark.parametrize("format", ["PPM", "TGA", "ICO", "PCX", "EPS", "SGI", "JPEG2000", "ICNS", "DDS"])
def test_decoders_outside_the_list_never_run(format: str) -> None:
    with pytest.raises((UnsupportedImageFormatError, NotAnImageError)):
        decode_image(encode(SMALL, format))


@pytest.mark.parametrize("blob", [b"\0", b"hello, world", b"GIF", bytes(1000), b"\xff\xd8"])
def test_anything_else_is_no_image(blob: bytes) -> None:
    with pytest.raises(NotAnImageError, match="accepted are JPEG, PNG"):
        decode_image(blob)


ENCODED = tuple(encode(SMALL, format) for format in FORMATS)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ENCODED), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_files_give_an_image_or_an_image_error(blob: bytes, damage: list[tuple[float, int]]) -> None:
    """Never another exception; messages carry nothing of the file and no address of memory."""
    damaged = bytearray(blob)
    for place, value in damage:
        damaged[round(place**3 * (len(blob) - 1))] = value  # headers stand in front
    few = 10**6
    limits = ImageLimits(max_pixels=few, max_canvas_pixels=few, max_deep_pixels=few)
    message = ""
    try:
        assert decode_image(bytes(damaged), limits).mode == "RGB"
    except ImageError as error:
        message = error.message
    assert "at 0x" not in message  # an object's address in memory
    assert "\n" not in message


def png(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """The header of a PNG and one empty data chunk: enough to be opened."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif(width: int, height: int, disposal: int) -> bytes:
    """A GIF of two colours whose only frame claims the size given, with almost no data."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    return screen + control + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
