"""PNG: damage that has nothing to do with pixels is no damage, and what costs time is counted."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clipsrv.errors import (
    ImageTooComplexError,
    InvalidImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)
from clipsrv.images.decode import decode_image
from clipsrv.images.open import open_image
from clipsrv.images.structure import png
from drills.inputs import chunk
from tests.support.photos import encode, opened

SMALL = Image.fromarray(np.asarray(opened("rocket.jpg").resize((64, 48))))
PLAIN = encode(SMALL)
PIXELS = PLAIN.index(b"IDAT") - 4
MIB = 2**20


def before(*chunks: bytes, blob: bytes = PLAIN) -> bytes:
    """A PNG with more chunks before its pixels."""
    at = blob.index(b"IDAT") - 4
    return blob[:at] + b"".join(chunks) + blob[at:]


def behind(*chunks: bytes) -> bytes:
    return PLAIN[:-12] + b"".join(chunks) + PLAIN[-12:]


def damaged(kind: bytes, body: bytes) -> bytes:
    """A chunk whose check sum is wrong."""
    whole = chunk(kind, body)
    return whole[:-1] + bytes([whole[-1] ^ 1])


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()[6:]


IDLE = {
    "a short gamma": chunk(b"gAMA", b"\0"),
    "short chromaticities": chunk(b"cHRM", b"\0" * 7),
    "a short size of pixels": chunk(b"pHYs", b"\0"),
    "a short rendering intent": chunk(b"sRGB", b""),
    "a short transparency": chunk(b"tRNS", b"\0"),
    "a profile of an unknown method": chunk(b"iCCP", b"a\0\7" + zlib.compress(b"x")),
    "a profile without an end": chunk(b"iCCP", b"a"),
    "a text of an unknown method": chunk(b"zTXt", b"a\0\7" + zlib.compress(b"x")),
    "a text with a wrong check sum": damaged(b"tEXt", b"a\0b"),
    "an international text with a wrong check sum": damaged(b"iTXt", b"a\0\0\0\0\0b"),
    "an Exif block with a wrong check sum": damaged(b"eXIf", oriented(6)),
    "an unknown chunk with a wrong check sum": damaged(b"abCd", b"x"),
    "a damaged animation": chunk(b"acTL", b"\0") + chunk(b"fcTL", b"\0") + chunk(b"fdAT", b""),
    "an animation out of order": chunk(b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0])) + chunk(b"fcTL", bytes([9] * 26)),
}


@pytest.mark.parametrize("name", IDLE)
def test_damage_that_has_nothing_to_do_with_pixels_is_no_damage(name: str) -> None:
    for blob in (before(IDLE[name]), behind(IDLE[name])):
        assert np.array_equal(np.asarray(decode_image(blob)), np.asarray(SMALL))


def test_a_png_of_nothing_but_pixels_is_given_on_as_it_is() -> None:
    assert png.read(PLAIN).data is PLAIN
    assert png.read(before(chunk(b"gAMA", bytes(4)))).data == PLAIN


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"eXIf", oriented(6)),
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>')),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  26\n" + (b"Exif\0\0" + oriented(6)).hex().encode()),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n26\n" + oriented(6).hex().encode())),
    ],
)
def test_whatever_says_what_is_up_is_heard(more: bytes) -> None:
    for blob in (before(more), behind(more)):
        assert decode_image(blob).size == (48, 64)


@pytest.mark.parametrize("junk", [b"garbage", b"\0\0\0\5\1\2\3\4", b"PK\3\4" * 50, b"\xff\xff\xff\xfftEXtx"])
def test_junk_behind_the_pixels_is_ignored(junk: bytes) -> None:
    for blob in (PLAIN + junk, PLAIN[:-12] + junk):
        assert np.array_equal(np.asarray(decode_image(blob)), np.asarray(SMALL))


def test_without_an_end_it_is_whole() -> None:
    assert np.array_equal(np.asarray(decode_image(PLAIN[:-12])), np.asarray(SMALL))


def test_a_cut_png_is_refused_at_every_length() -> None:
    for length in range(9, len(PLAIN) - 60, 61):
        with pytest.raises((TruncatedImageError, InvalidImageError)):
            decode_image(PLAIN[:length])


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ([chunk(b"abCd", b"")] * png.MAX_CHUNKS, "chunks"),
        ([chunk(b"IDAT", b"")] * png.MAX_CHUNKS, "chunks"),
        ([chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(MIB - 1)))] * (png.MAX_COMPRESSED + 1), "compressed texts"),
        ([chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x"))] * (png.MAX_COMPRESSED + 1), "compressed texts"),
    ],
    ids=["idle", "empty pixels", "compressed", "international"],
)
def test_chunks_are_counted(more: list[bytes], what: str) -> None:
    with pytest.raises(ImageTooComplexError, match=f"^The PNG has too many {what}: at most"):
        open_image(before(*more))


def test_ten_thousand_texts_hurt_nobody() -> None:
    more = [chunk(b"tEXt", b"a\0b"), chunk(b"iTXt", b"a\0\0\0\0\0b"), chunk(b"iTXt", b"a"), chunk(b"zTXt", b"a")] * 50
    assert np.array_equal(np.asarray(decode_image(before(*more, *more[:1] * 9800))), np.asarray(SMALL))


@pytest.mark.parametrize("kind", [b"eXIf", b"iTXt", b"tEXt"])
def test_a_huge_text_says_nothing_of_what_is_up(kind: bytes) -> None:
    head = {b"eXIf": b"", b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0", b"tEXt": b"Raw profile type exif\0"}[kind]
    assert png.read(before(chunk(kind, head + b"\n" * 2 * MIB))).data == PLAIN


def test_one_text_that_grows_too_large_is_refused() -> None:
    """By Pillow's own limit."""
    for text in (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"):
        with pytest.raises(InvalidImageError):
            decode_image(before(chunk(text[0], text[1] + zlib.compress(bytes(2 * MIB)))))


@pytest.mark.parametrize(
    "blob",
    [
        b"\x89PNG\r\n\x1a\r" + PLAIN[8:],
        PLAIN[:8] + chunk(b"gAMA", bytes(13)) + PLAIN[8:],
        PLAIN[:24] + b"\7" + PLAIN[25:],
        PLAIN[:25] + b"\5" + PLAIN[26:],
        PLAIN[:28] + b"\2" + PLAIN[29:],
        PLAIN[:PIXELS] + b"\0\0\0\1a-Cd" + PLAIN[PIXELS:],
    ],
    ids=["magic", "another first chunk", "7 bits", "colour 5", "interlace 2", "a name that is none"],
)
def test_a_png_header_that_makes_no_sense_is_damage(blob: bytes) -> None:
    with pytest.raises(InvalidImageError, match="begins like PNG"):
        open_image(blob)


def test_apples_own_form_is_called_by_its_name() -> None:
    with pytest.raises(UnsupportedImageFormatError, match="This form of PNG is not read: Apple's own"):
        open_image(PLAIN[:8] + chunk(b"CgBI", bytes(4)) + PLAIN[8:])


def test_without_pixels_it_is_truncated() -> None:
    header = PLAIN[:PIXELS]
    for blob in (header + PLAIN[-12:], header, header + struct.pack(">I4s", 1000, b"tEXt")):
        with pytest.raises(TruncatedImageError):
            open_image(blob)


@pytest.mark.parametrize("apart", [False, True])
def test_the_first_image_of_an_animation_is_the_one_shown_by_who_knows_no_animation(apart: bool) -> None:
    frames = [SMALL.transpose(Image.Transpose.ROTATE_180), SMALL]
    blob = encode(SMALL, save_all=True, append_images=frames, default_image=apart)
    assert b"acTL" in blob
    assert np.array_equal(np.asarray(decode_image(blob)), np.asarray(SMALL))
