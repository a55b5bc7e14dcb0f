"""GIF, WebP and BMP: canvases, blocks before the pixels, and what lossless pixels may take of memory."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipsrv.errors import (
    ImageTooComplexError,
    ImageTooLargeError,
    InvalidImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)
from clipsrv.images.decode import decode_image
from clipsrv.images.open import open_image
from clipsrv.images.structure import gif, webp
from clipsrv.settings import ImageLimits
from tests.support.photos import encode, opened

SMALL = Image.fromarray(np.asarray(opened("rocket.jpg").resize((64, 48))))

# --- GIF ---


def a_gif(
    extensions: bytes = b"", screen: tuple[int, int] = (8, 8), frame: tuple[int, int, int, int] = (0, 0, 8, 8)
) -> bytes:
    """White pixels of one code each."""
    file = BytesIO()
    Image.new("P", frame[2:], 1).save(file, "GIF")
    blob = file.getvalue()
    head = blob[:6] + struct.pack("<HH", *screen) + blob[10:13]
    palette_bytes = 3 << (blob[10] & 7) + 1 if blob[10] & 0x80 else 0
    at = 13 + palette_bytes
    image = blob.index(b",", at)
    return head + blob[13:at] + extensions + b"," + struct.pack("<HHHH", *frame) + blob[image + 9 :]


def test_a_canvas_is_as_large_as_its_screen_or_its_first_image() -> None:
    assert open_image(a_gif(screen=(20, 30))).header.size == (20, 30)
    assert open_image(a_gif(screen=(4, 4), frame=(3, 5, 8, 8))).header.size == (11, 13)
    assert decode_image(a_gif(screen=(4, 4), frame=(3, 5, 8, 8))).size == (11, 13)
    with pytest.raises(ImageTooLargeError):
        open_image(a_gif(screen=(8, 8), frame=(9000, 9000, 8, 8)))


@pytest.mark.parametrize("more", [b"!\xfe\0", b"!\xfe\1a\0", b"!\x01\1a\1b\0", b"\0"])
def test_blocks_before_the_image_are_counted(more: bytes) -> None:
    assert decode_image(a_gif(more * 1000)).size == (8, 8)
    with pytest.raises(ImageTooComplexError, match=r"^The GIF has too many blocks before its image: at most 100,000"):
        open_image(a_gif(more * (gif.MAX_BLOCKS + 1)))


@pytest.mark.parametrize(
    "blob", [b"GIF89a", b"GIF88a" + a_gif()[6:], a_gif()[:14], a_gif(b";"), a_gif(b"!\xfe\xff")[:20]]
)
def test_a_gif_without_an_image_is_no_image(blob: bytes) -> None:
    with pytest.raises(InvalidImageError, match="begins like GIF"):
        open_image(blob)


# --- WebP ---


def test_lossless_pixels_may_take_much_memory() -> None:
    """As libwebp allocates tables for every group of codes that the file may have."""
    plain, lossless = encode(SMALL, "WEBP"), encode(SMALL, "WEBP", lossless=True)
    assert open_image(plain).cost == -(-22 * 64 * 48 // 16)
    assert open_image(lossless).cost > 4 * open_image(plain).cost
    with_alpha = SMALL.convert("RGBA")
    with_alpha.putalpha(Image.linear_gradient("L").resize((64, 48)))
    assert open_image(encode(with_alpha, "WEBP")).cost > open_image(plain).cost


def test_an_image_that_may_take_more_memory_than_was_allowed_is_refused() -> None:
    blob = encode(SMALL, "WEBP", lossless=True)
    cost = open_image(blob).cost
    fits = -(-4 * cost // 9)
    assert open_image(blob, ImageLimits(max_pixels=fits)).cost == cost
    with pytest.raises(ImageTooComplexError, match="may take the memory of") as caught:
        open_image(blob, ImageLimits(max_pixels=fits - 1))
    assert caught.value.details == {"limit": ImageLimits(max_pixels=fits - 1).max_cost}


def test_an_animation_costs_what_its_first_frame_does() -> None:
    blob = encode(SMALL, "WEBP", save_all=True, append_images=[SMALL.rotate(90)], lossless=True)
    assert b"ANMF" in blob
    assert open_image(blob).cost < 1.5 * open_image(encode(SMALL, "WEBP", lossless=True)).cost


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_chunks_before_the_pixels_are_counted() -> None:
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(10)
    idle, pixels = b"ABCD" + bytes(4), encode(SMALL, "WEBP", lossless=True)[12:]
    assert open_image(riff(canvas, idle * 100, pixels)).header.size == (1, 1)
    with pytest.raises(ImageTooComplexError, match=r"^The WebP has too many chunks before its pixels"):
        open_image(riff(canvas, idle * webp.MAX_CHUNKS, pixels))
    with pytest.raises(TruncatedImageError):
        open_image(riff(canvas, idle * 3))


@pytest.mark.parametrize("place", [0, 12, 20])
def test_a_webp_that_begins_otherwise_is_damaged(place: int) -> None:
    blob = bytearray(encode(SMALL, "WEBP", lossless=True))
    blob[place] ^= 0xFF
    with pytest.raises(InvalidImageError, match="begins like WEBP"):
        open_image(bytes(blob))


# --- BMP ---


def a_bmp(bits: int, compression: int = 0, masks: tuple[int, ...] = (), length: int = 40, rows: int = 8) -> bytes:
    head = struct.pack("<IiiHHIIiiII", length, 8, rows, 1, bits, compression, 0, 0, 0, 0, 0)[:length]
    head += struct.pack(f"<{len(masks)}I", *masks)
    head = head.ljust(length, b"\0")
    palette = bytes(4 << bits) if bits <= 8 else b""
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + head + palette + bytes(8 * 8 * 4)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (a_bmp(2), "2 bits a pixel"),
        (a_bmp(64), "64 bits a pixel"),
        (a_bmp(24, 4), "its compression"),
        (a_bmp(32, 3, (0xFF, 0xFF00, 0xFF0000)), "its bit fields"),
        (a_bmp(16, 3, (0xF00, 0xF0, 0xF), 56), "its bit fields"),
        (a_bmp(8, 3, (0xFF, 0xFF00, 0xFF0000)), "its bit fields"),
        (a_bmp(32, 3, (0xFF000000, 0xFF0000, 0xFF00, 1), 56), "its bit fields"),
        (b"BM" + bytes(12) + struct.pack("<I", 16) + bytes(100), "its header has 16 bytes"),
    ],
)
def test_a_form_of_bmp_that_is_not_read_is_called_by_its_name(blob: bytes, words: str) -> None:
    with pytest.raises(UnsupportedImageFormatError, match=f"^This form of BMP is not read: {words}"):
        open_image(blob)


@pytest.mark.parametrize(
    "blob",
    [
        a_bmp(32, 3, (0xFF0000, 0xFF00, 0xFF)),
        a_bmp(32, 3, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 56),
        a_bmp(24, 3, (0xFF0000, 0xFF00, 0xFF)),
        a_bmp(16, 3, (0xF800, 0x7E0, 0x1F, 0), 56),
        a_bmp(8),
        a_bmp(24, rows=-8),
        b"BM" + bytes(8) + struct.pack("<IIHHHH", 26, 12, 8, 8, 1, 24) + bytes(8 * 8 * 3),
    ],
)
def test_the_usual_forms_of_bmp_are_read(blob: bytes) -> None:
    assert decode_image(blob).size == (8, 8)


def test_runs_are_held_to_the_limit_of_canvases() -> None:
    limits = ImageLimits(max_canvas_pixels=63)
    assert open_image(a_bmp(8), limits)
    with pytest.raises(ImageTooLargeError):
        open_image(a_bmp(8, 1), limits)


def test_runs_of_anything_but_a_palette_are_damage() -> None:
    with pytest.raises(InvalidImageError):
        open_image(a_bmp(24, 1))
