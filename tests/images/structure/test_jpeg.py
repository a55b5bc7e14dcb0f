"""JPEG: segments and scans are counted, what is of no use is left out, and a missing end mark is no damage."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from clipsrv.errors import (
    ImageError,
    ImageTooComplexError,
    InvalidImageError,
    TruncatedImageError,
    UnsupportedImageFormatError,
)
from clipsrv.images.decode import decode_image
from clipsrv.images.open import open_image
from clipsrv.images.structure import jpeg, jpeg_scans
from clipsrv.images.structure.header import Size
from tests.support.jpegs import EOI, frame_at, progressive, segment, with_segments
from tests.support.photos import encode, opened

SMALL = Image.fromarray(np.asarray(opened("rocket.jpg").resize((64, 48))))
PLAIN = encode(SMALL, "JPEG")
PROGRESSIVE = encode(SMALL, "JPEG", progressive=True)
EXIF = b"Exif\0\0II*\0\x08\0\0\0\0\0"


def same(one: bytes, other: bytes) -> bool:
    return np.array_equal(np.asarray(decode_image(one)), np.asarray(decode_image(other)))


# --- what is left out ---


def test_a_jpeg_of_nothing_but_pixels_is_given_on_as_it_is() -> None:
    for blob in (PLAIN, PROGRESSIVE):
        assert jpeg.read(blob).data is blob


def test_segments_that_say_nothing_of_pixels_are_left_out() -> None:
    idle = segment(0xE2, b"ICC_PROFILE\0"), segment(0xED, b"Photoshop 3.0\0"), segment(0xFE, b"a comment"), b"\xff" * 9
    assert jpeg.read(with_segments(PLAIN, *idle)).data == PLAIN


def test_what_says_what_is_up_and_which_colours_there_are_stays() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
    assert decode_image(encode(SMALL, "JPEG", exif=exif, comment=b"x")).size == (48, 64)
    assert decode_image(with_segments(PLAIN, xmp, segment(0xFE))).size == (48, 64)
    inverted = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert b"Adobe" in jpeg.read(with_segments(inverted, segment(0xFE))).data
    assert same(with_segments(inverted, segment(0xFE)), inverted)


def test_what_follows_the_end_of_several_scans_is_never_looked_at() -> None:
    """A motion photo's film may hold anything."""
    assert jpeg.read(PROGRESSIVE + b"\xff\xda" * 1000).data == PROGRESSIVE


# --- what is counted ---


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ([segment(0xE5)] * jpeg.MAX_SEGMENTS, "segments"),
        ([segment(0xE1, EXIF)] * (jpeg.MAX_EXIF_SEGMENTS + 1), "Exif segments"),
        ([b"\xff" * (jpeg.MAX_JUNK + 1)], "bytes of padding"),
        ([b"\xff" * 40_000, segment(0xFE), b"\0" * 40_000], "bytes of padding"),
        ([b"\xff\0" * (jpeg.MAX_JUNK // 2 + 1)], "bytes of padding"),
        ([b"\xff\xd0" * (jpeg.MAX_JUNK // 2 + 1)], "bytes of padding"),
        ([segment(0xDB, (b"\0" + b"\1" * 64) * 500)] * 3, "bytes of quantization tables"),
    ],
    ids=["segments", "Exif", "padding", "padding and junk", "stuffing", "bare markers", "tables"],
)
def test_what_costs_time_before_the_pixels_is_counted(more: list[bytes], what: str) -> None:
    with pytest.raises(ImageTooComplexError, match=f"^The JPEG has too many {what}: at most") as caught:
        open_image(with_segments(PLAIN, *more))
    assert caught.value.details["limit"] > 0


def test_a_photo_with_a_profile_a_depth_map_and_padding_is_no_bomb() -> None:
    more = [segment(0xE2, bytes(60_000))] * 255 + [b"\xff" * 1000] + [segment(0xE1, EXIF)] + [segment(0xE1, b"x")] * 400
    assert same(with_segments(PLAIN, *more), PLAIN)


def test_scans_are_counted_before_any_is_decoded() -> None:
    assert decode_image(progressive(64, 48, jpeg_scans.MAX_SCANS)).size == (64, 48)
    for scans in (jpeg_scans.MAX_SCANS + 1, 5000):
        with pytest.raises(ImageTooComplexError, match="too many scans: at most 100"):
            open_image(progressive(64, 48, scans))


def test_scans_are_counted_in_pieces_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = progressive(64, 48, 50)
    for piece in (1, 2, 3, 10, len(blob)):
        monkeypatch.setattr(jpeg_scans, "_PIECE", piece)
        assert jpeg.read(blob + b"\xff\xda").data == blob
        with pytest.raises(ImageTooComplexError):
            jpeg.read(progressive(64, 48, 101))


def test_what_scans_go_over_is_counted_before_any_is_decoded() -> None:
    """A scan of arithmetic coding takes its time for every coefficient, and hardly any bytes."""
    plain, limit = progressive(640, 480, 60), jpeg_scans.MAX_VISITS_PER_PIXEL
    visits = 640 * 480 * (9 + 59 * (63 + 8)) // 64
    scans = jpeg_scans.Scans(plain, plain.index(b"\xff\xda"), Size(640, 480), lambda *_: None)
    assert scans.visits == pytest.approx(visits, rel=0.01)
    assert visits > limit * 640 * 480
    jpeg_scans.judge(visits, 640 * 480)  # a small image may go over more
    with pytest.raises(ImageTooComplexError, match="coefficients in its scans"):
        jpeg_scans.judge(jpeg_scans.MAX_VISITS + 1, 640 * 480)
    large = frame_of(plain, 7000, 7000)
    with pytest.raises(ImageTooComplexError, match="coefficients in its scans"):
        open_image(large)
    assert open_image(frame_of(progressive(64, 48, 30), 7000, 7000))
    with pytest.raises(ImageTooComplexError, match="coefficients in its scans"):
        open_image(frame_of(progressive(64, 48, 30), 7000, 7000, marker=0xCA))


def frame_of(blob: bytes, width: int, height: int, marker: int = 0xC2) -> bytes:
    """A JPEG whose frame header says another size."""
    at = frame_at(blob)
    return blob[: at + 1] + bytes([marker]) + blob[at + 2 : at + 5] + struct.pack(">HH", height, width) + blob[at + 9 :]


def test_what_stands_between_scans_is_no_scan_and_no_end() -> None:
    at = PROGRESSIVE.rfind(b"\xff\xda")
    between = segment(0xFE, EOI + b"\xff\xda" * 200) + b"\xff" * 9
    assert same(PROGRESSIVE[:at] + between + PROGRESSIVE[at:], PROGRESSIVE)
    assert same(PROGRESSIVE[:at] + between + PROGRESSIVE[at:-2], PROGRESSIVE)
    for more, error in (
        (segment(0xFE) * jpeg.MAX_SEGMENTS, ImageTooComplexError),
        (b"\xff\x5a", InvalidImageError),
        (b"\xff\xfe\xff\xff", TruncatedImageError),
        (b"\xff\xda\0\x08\1\1\0\0\x40\0", InvalidImageError),
    ):
        with pytest.raises(error):
            open_image(PROGRESSIVE[:at] + more + PROGRESSIVE[at:])


def test_padding_costs_no_time_wherever_it_stands() -> None:
    at = PLAIN.rfind(EOI)
    assert same(PLAIN[:at] + b"\xff" * 2_000_000 + PLAIN[at:], PLAIN)


# --- the end mark ---


@pytest.mark.parametrize(
    "blob", [PLAIN, PROGRESSIVE, encode(SMALL.convert("L"), "JPEG")], ids=["plain", "progressive", "grey"]
)
def test_a_jpeg_that_lacks_only_its_end_mark_is_whole(blob: bytes) -> None:
    assert blob.endswith(EOI)
    for missing in (1, 2):
        assert same(blob[:-missing], blob)


@pytest.mark.parametrize("blob", [PLAIN, PROGRESSIVE], ids=["plain", "progressive"])
def test_a_jpeg_that_lacks_any_of_its_pixels_is_refused(blob: bytes) -> None:
    """At every length: but for the mark, each byte at the end may hold a pixel's bits."""
    whole = np.asarray(decode_image(blob))
    for length in [*range(len(blob) - 40, len(blob)), *range(700, len(blob), 97)]:
        try:
            assert np.array_equal(np.asarray(decode_image(blob[:length])), whole)
        except TruncatedImageError:
            assert length < len(blob) - 2
    with pytest.raises(TruncatedImageError):
        decode_image(blob[:-12])


def test_a_scan_whose_head_is_cut_is_truncated() -> None:
    start = PROGRESSIVE.rindex(b"\xff\xda")
    for length in range(2, 10):
        with pytest.raises(TruncatedImageError):
            decode_image(PROGRESSIVE[: start + length])


def test_scans_that_are_missing_altogether_are_missed() -> None:
    """Each scan that is there is whole."""
    starts = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE.startswith(b"\xff\xda", at)]
    tables = [at for at in range(len(PROGRESSIVE)) if PROGRESSIVE.startswith(b"\xff\xc4", at)]
    assert len(starts) > 5
    for start in starts[1:]:
        end = max([table for table in tables if starts[starts.index(start) - 1] < table < start], default=start)
        with pytest.raises(TruncatedImageError):
            decode_image(PROGRESSIVE[:end])


def test_fast_decoding_wants_the_end_mark_no_more() -> None:
    blob = encode(opened("retina.jpg"), "JPEG")
    assert decode_image(blob[:-2], reduce_to=300).size == (353, 353)


# --- forms ---


def with_frame(marker: int = 0xC0, precision: int = 8, height: int = 48, components: int = 3) -> bytes:
    """A JPEG whose frame header says something else."""
    at = frame_at(PLAIN)
    head = bytes([0xFF, marker]) + PLAIN[at + 2 : at + 4] + bytes([precision]) + height.to_bytes(2, "big")
    return PLAIN[:at] + head + PLAIN[at + 7 : at + 9] + bytes([components]) + PLAIN[at + 10 :]


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (with_frame(precision=12), "12 bits a level"),
        (with_frame(components=2), "2 components"),
        (with_frame(marker=0xC5), "hierarchical"),
        (with_frame(marker=0xCB), "lossless with arithmetic coding"),
        (with_frame(height=0), "its height stands behind the pixels"),
    ],
)
def test_a_form_of_jpeg_that_is_not_read_is_called_by_its_name(blob: bytes, words: str) -> None:
    with pytest.raises(UnsupportedImageFormatError, match=f"^This form of JPEG is not read: .*{words}") as caught:
        open_image(blob)
    assert caught.value.details == {"format": "JPEG"}


def test_a_lossless_jpeg_is_read_and_never_smaller() -> None:
    pixels = np.asarray(opened("retina.jpg").resize((800, 600)))
    blob = bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1))
    assert blob[frame_at(blob) + 1] == 0xC3
    for reduce_to in (None, 100):
        assert np.array_equal(np.asarray(decode_image(blob, reduce_to=reduce_to)), pixels)
    assert open_image(blob, reduce_to=100).cost == 800 * 600


@pytest.mark.parametrize(
    "blob",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff" * 100,
        PLAIN[: frame_at(PLAIN)],
        PLAIN[: frame_at(PLAIN) + 5],
        with_segments(PLAIN, b"\xff\xe5\xff\xff")[:500],
    ],
)
def test_a_jpeg_that_ends_before_its_pixels_is_truncated(blob: bytes) -> None:
    with pytest.raises(TruncatedImageError):
        open_image(blob)


@pytest.mark.parametrize(
    "blob",
    [
        with_segments(PLAIN, b"\xff\x01"),
        PLAIN[:2] + segment(0xDA, b"\1\1\0\0\0\0") + EOI,
        PLAIN[:2] + segment(0xC0, b"\x08") + segment(0xDA, b"\1\1\0\0\0\0") + EOI,
    ],
)
def test_a_jpeg_header_that_makes_no_sense_is_damage(blob: bytes) -> None:
    with pytest.raises(InvalidImageError):
        open_image(blob)


def test_junk_between_segments_is_passed_over() -> None:
    assert same(with_segments(PLAIN, segment(0xFE), b"junk", b"\xff\0", b"\xff\xd0"), PLAIN)


def test_a_segment_that_claims_no_length_hurts_nobody() -> None:
    with pytest.raises(ImageError):
        decode_image(with_segments(PLAIN, b"\xff\xc4\0\0"))
