"""TIFF's directory: what is nothing to us is not read, too many are refused, and tiles count as what they are."""

from __future__ import annotations

import struct
from contextlib import nullcontext

import numpy as np
import pytest

from clipsrv.errors import ImageTooComplexError, ImageTooLargeError, InvalidImageError
from clipsrv.images.decode import decode_image
from clipsrv.images.open import open_image
from clipsrv.images.structure import jpeg_scans, tiff_tags
from tests.support.jpegs import progressive, segment, with_segments
from tests.support.tiffs import BLACK_IS_ZERO, RGB, YCBCR, Kind, Layout, Tags, assemble, samples_of, tiff

SAMPLES = samples_of(Kind(RGB))


def test_tags_that_say_nothing_of_pixels_are_not_given_on() -> None:
    idle: Tags = {270: ("B", [65] * 100), 34675: ("B", [1] * 5000), 34665: ("I", [8]), 330: ("I", [8, 8, 8])}
    plain, filled = (open_image(tiff(SAMPLES, Kind(RGB), tags=tags)).header.data for tags in ({}, idle))
    assert tiff_tags.read_directory(filled) == tiff_tags.read_directory(plain)


def test_tags_are_counted() -> None:
    idle: Tags = {tag: ("I", [tag]) for tag in range(1000, 1000 + tiff_tags.MAX_TAGS)}
    with pytest.raises(ImageTooComplexError, match=r"^The TIFF has too many tags: at most 1,000"):
        open_image(tiff(SAMPLES, Kind(RGB), tags=idle))
    assert np.array_equal(np.asarray(decode_image(tiff(SAMPLES, Kind(RGB), tags=dict([*idle.items()][:900])))), SAMPLES)


def test_strips_and_tiles_are_counted() -> None:
    count = tiff_tags.MAX_BLOCKS + 1
    for tags in ({273: ("I", [8] * count)}, {324: ("I", [8] * count)}, {279: ("H", [8] * count)}):
        with pytest.raises(ImageTooComplexError, match="too many strips or tiles: at most 65,536"):
            open_image(tiff(SAMPLES, Kind(RGB), tags=tags))


def test_a_tile_larger_than_its_image_counts_as_what_it_is() -> None:
    """Decoders allocate it whole."""
    shape = (64, 64, 1)
    large, huge = (
        assemble([b"x"], shape, Kind(BLACK_IS_ZERO), Layout("<", "LZW", tile=(side, side))) for side in (1024, 40_000)
    )
    assert open_image(large).cost == 1024**2
    with pytest.raises(ImageTooLargeError):
        open_image(huge)


def test_what_tiles_hold_beyond_the_edge_counts_too() -> None:
    """Each of these is decoded whole, and shows one column of 16 pixels."""
    narrow = assemble([b"x"] * 100, (16, 100, 1), Kind(BLACK_IS_ZERO), Layout("<", "LZW", tile=(1, 10_000_000)))
    with pytest.raises(ImageTooLargeError):
        open_image(narrow)
    honest = tiff(SAMPLES, Kind(RGB), Layout(tile=(16, 16)))
    assert open_image(honest).cost == SAMPLES.shape[0] * SAMPLES.shape[1]


@pytest.mark.parametrize("layout", [Layout(fill=2, rows=1), Layout(rows=1)], ids=["low bit first", "plain"])
def test_strips_that_lie_over_each_other_take_no_more_than_the_file(layout: Layout) -> None:
    """One for all is read; else a file of a megabyte could be made into terabytes."""
    rows = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[:, None], (1000, 100, 1))
    blob = tiff(rows[:1], Kind(BLACK_IS_ZERO), layout)
    shared: Tags = {257: ("I", [1000]), 273: ("I", [8] * 1000), 279: ("I", [100] * 1000)}
    image = np.asarray(decode_image(assemble([blob[8:108]], (1000, 100, 1), Kind(BLACK_IS_ZERO), layout, shared)))
    assert np.array_equal(image[..., :1], rows)
    shifted: Tags = {257: ("I", [1000]), 273: ("I", [*range(8, 1008)]), 279: ("I", [100] * 1000)}
    with pytest.raises(ImageTooComplexError, match="bytes in its strips or tiles"):
        open_image(assemble([bytes(2000)], (1000, 100, 1), Kind(BLACK_IS_ZERO), layout, shifted))


@pytest.mark.parametrize("sizes", [[20_000] * 1000, []], ids=["told", "not told"])
def test_compressed_strips_that_share_what_they_hold_count_each_time(sizes: list[int]) -> None:
    """Before the first pixel may stand what takes the decoder long, and it is read anew for each."""
    for count, raises in ((300, False), (1000, True)):
        tags: Tags = {273: ("I", [8] * count), 279: ("I", sizes[:count])}
        blob = assemble([bytes(20_000)], (count, 100, 1), Kind(BLACK_IS_ZERO), Layout("<", "Deflate", rows=1), tags)
        with pytest.raises(ImageTooComplexError, match="bytes in its strips") if raises else nullcontext():
            open_image(blob)


def test_the_scans_of_a_jpeg_inside_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_scans, "MAX_VISITS", 200_000)

    def inside(blob: bytes, count: int = 1) -> bytes:
        tags: Tags = {324: ("I", [8] * count), 325: ("I", [len(blob)] * count)}
        layout = Layout("<", "JPEG", tile=(64, 48))
        return assemble([blob], (48 * count, 64, 1), Kind(BLACK_IS_ZERO), layout, tags)

    assert decode_image(inside(progressive(64, 48, 50))).size == (64, 48)
    for blob, what in (
        (inside(progressive(64, 48, 101)), "JPEG has too many scans"),
        (inside(progressive(64, 48, 50), 20), "TIFF has too many coefficients in its scans"),
        (inside(with_segments(progressive(64, 48, 2), segment(0xFE) * 2001)), "JPEG has too many segments"),
    ):
        with pytest.raises(ImageTooComplexError, match=what):
            open_image(blob)


def test_a_value_too_many_is_no_value() -> None:
    blob = tiff(SAMPLES, Kind(RGB), tags={256: ("I", [SAMPLES.shape[1], 7]), 258: ("H", [8] * 40), 274: ("H", [6, 1])})
    assert decode_image(blob).size == SAMPLES.shape[:2]


def test_the_first_of_two_tags_counts() -> None:
    blob = tiff(SAMPLES, Kind(RGB), tags={254: ("I", [5])})
    at = blob.index(struct.pack("<HHII", 254, 4, 1, 5))
    twice = blob[:at] + struct.pack("<HHII", 256, 4, 1, SAMPLES.shape[1]) + blob[at + 12 :]
    wrong = twice.replace(struct.pack("<HHII", 256, 4, 1, SAMPLES.shape[1]), struct.pack("<HHII", 256, 4, 1, 9), 2)
    wrong = wrong.replace(struct.pack("<HHII", 256, 4, 1, 9), struct.pack("<HHII", 256, 4, 1, SAMPLES.shape[1]), 1)
    assert decode_image(wrong).width == SAMPLES.shape[1]


def test_references_of_black_and_white_may_be_whole_numbers() -> None:
    samples = np.full((16, 16, 3), 128, np.uint8)
    samples[:, :, 0] = 235
    tags: Tags = {530: ("H", [1, 1]), 532: ("I", [16, 235, 128, 240, 128, 240])}
    blob = tiff(samples, Kind(YCBCR), Layout(compression="LZW"), tags)
    assert np.asarray(decode_image(blob)).min() > 250  # 235 is white
    assert (
        np.asarray(decode_image(tiff(samples, Kind(YCBCR), Layout(compression="LZW"), {530: ("H", [1, 1])}))).max()
        < 240
    )


@pytest.mark.parametrize(
    "blob",
    [
        b"II*\0\xff\xff\xff\x7f" + bytes(100),
        b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(100),
        b"II*\0\x08\0\0\0\x09\0" + bytes(50),
        tiff(SAMPLES, Kind(RGB), tags={256: ("I", [])}),
    ],
)
def test_a_directory_that_is_not_there_is_damage(blob: bytes) -> None:
    with pytest.raises(InvalidImageError, match="begins like TIFF"):
        open_image(blob)


def test_a_width_that_is_no_whole_number_is_damage() -> None:
    blob = tiff(SAMPLES, Kind(RGB))
    entry = struct.pack("<HHI", 256, 4, 1)
    with pytest.raises(InvalidImageError):
        open_image(blob.replace(entry, struct.pack("<HHI", 256, 11, 1)))


@pytest.mark.parametrize("start", [b"MM*\0", b"II\0*"])
def test_a_number_in_the_wrong_order_is_forgiven_as_before(start: bytes) -> None:
    order = "<" if start[:1] == b"I" else ">"
    blob = tiff(SAMPLES, Kind(RGB), Layout(order))
    assert np.array_equal(np.asarray(decode_image(start + blob[4:])), SAMPLES)
