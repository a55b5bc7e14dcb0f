"""Every form of TIFF is read right or refused as a form of TIFF: what was written is known, and tifffile agrees.

The whole matrix, some fifteen thousand files, is tried by scripts/tiff-forms.
"""

from __future__ import annotations

import itertools
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from clipsrv.errors import InvalidImageError, TruncatedImageError, UnsupportedImageFormatError
from clipsrv.images.decode import decode_image
from tests.support.tiffs import (
    BLACK_IS_ZERO,
    CMYK,
    HEIGHT,
    PALETTE,
    PLAIN,
    REVERSED,
    RGB,
    WHITE_IS_ZERO,
    WIDTH,
    YCBCR,
    Kind,
    Layout,
    Samples,
    Tags,
    assemble,
    kinds,
    layouts,
    palette,
    samples_of,
    shown,
    tiff,
)

KINDS = [*kinds()]


def read(blob: bytes, *, apply_orientation: bool = True) -> Samples:
    """int (height, width, 3): what clipsrv sees."""
    return np.asarray(decode_image(blob, apply_orientation=apply_orientation)).astype(int)


def rgb(image: Image.Image) -> Samples:
    return np.asarray(image.convert("RGB")).astype(int)


def named(case: object) -> str:
    if isinstance(case, Kind):
        small = case.palette is not None and case.palette.max() < 256
        return f"{case.colour}-{case.bits}{case.kind}-{case.extra}{'-small' if small else ''}"
    return "-".join(str(value) for value in vars(case).values()) if isinstance(case, Layout) else str(case)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[named(kind) for kind in KINDS])
def test_a_form_is_read_right_or_refused_as_a_form_of_tiff(number: int) -> None:
    """In some of its layouts, which are others for each kind."""
    kind, samples = KINDS[number], samples_of(KINDS[number])
    for layout in [*layouts(kind)][11 * number % 37 :: 37]:
        blob = tiff(samples, kind, layout)
        try:
            found = read(blob)
        except UnsupportedImageFormatError as error:
            assert error.message.startswith("This form of TIFF is not read: "), layout
            assert error.details == {"format": "TIFF"}
            continue
        other = tifffile.imread(BytesIO(blob))
        other = np.moveaxis(other, 0, -1) if layout.planar == 2 and samples.shape[2] > 1 else other
        np.testing.assert_array_equal(other.reshape(samples.shape), samples, err_msg=str(layout))
        np.testing.assert_allclose(found, shown(samples, kind), atol=2, err_msg=str(layout))


COMMON = [
    Kind(WHITE_IS_ZERO, 1),
    Kind(BLACK_IS_ZERO, 8),
    Kind(WHITE_IS_ZERO, 16),
    Kind(BLACK_IS_ZERO, 12),
    Kind(BLACK_IS_ZERO, 32, "f"),
    Kind(RGB),
    Kind(RGB, 16),
    Kind(RGB, extra=(2,)),
    Kind(PALETTE, 4, palette=palette(4)),
    Kind(PALETTE, 8, palette=palette(8, entries_of_8_bits=True)),
    Kind(CMYK),
]
USUAL = [
    PLAIN,
    Layout(">", rows=7),
    Layout(tile=(16, 16)),
    Layout(planar=2),
    Layout(compression="LZW"),
    Layout(compression="Deflate", tile=(16, 32)),
    Layout(compression="PackBits", rows=5),
]


@pytest.mark.parametrize("layout", USUAL, ids=named)
@pytest.mark.parametrize("kind", COMMON, ids=named)
def test_what_cameras_scanners_and_programs_write_is_read(kind: Kind, layout: Layout) -> None:
    samples = samples_of(kind)
    np.testing.assert_allclose(read(tiff(samples, kind, layout)), shown(samples, kind), atol=2)


@pytest.mark.parametrize("kind", [kind for kind in COMMON if kind.bits <= 8 and kind.colour != PALETTE], ids=named)
@pytest.mark.parametrize("layout", [layout for layout in USUAL if layout.planar == 1], ids=named)
def test_where_pillow_alone_is_right_its_bytes_are_kept(kind: Kind, layout: Layout) -> None:
    blob = tiff(samples_of(kind), kind, layout)
    with Image.open(BytesIO(blob)) as image:
        assert np.array_equal(read(blob), rgb(image))


def test_a_premultiplied_image_shows_its_colours() -> None:
    """Unlike its bytes: its transparency is divided out before it is dropped."""
    samples = np.full((HEIGHT, WIDTH, 4), 60, np.uint8)
    samples[:, :, 3] = 120
    assert np.unique(read(tiff(samples, Kind(RGB, extra=(1,))))).tolist() in ([127], [128])


def test_rgba_without_a_word_on_its_fourth_sample_shows_its_colours_in_every_layout() -> None:
    samples = samples_of(Kind(RGB, extra=(2,)))
    for planar in (1, 2):
        blob = tiff(samples, Kind(RGB, extra=(2,)), Layout(planar=planar, compression="LZW"), {338: ("H", [])})
        assert np.array_equal(read(blob), samples[:, :, :3])


# --- JPEG, fax and YCbCr inside ---


def photo() -> Samples:
    """(48, 64, 3): soft shades, which compression hardly changes."""
    down, across = np.mgrid[0:48, 0:64]
    return np.stack([across * 4, down * 5, (across + down) * 2], -1).astype(np.uint8)


def jpeg(block: Samples, space: str, **options: Any) -> bytes:
    given = "RGB" if space == "YCBCR" else space
    return bytes(
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(block), level=97, colorspace=given, outcolorspace=space, **options
        )
    )


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("colour", "space", "subsampling"),
    [
        (BLACK_IS_ZERO, "GRAYSCALE", None),
        (RGB, "RGB", None),
        (CMYK, "CMYK", None),
        (YCBCR, "YCBCR", (1, 1)),
        (YCBCR, "YCBCR", (2, 1)),
        (YCBCR, "YCBCR", (2, 2)),
    ],
)
def test_jpeg_inside_is_read(colour: int, space: str, subsampling: tuple[int, int] | None, tiled: bool) -> None:
    whole = photo()
    pixels = {BLACK_IS_ZERO: whole[:, :, :1], CMYK: np.dstack([whole, whole[:, :, 0] // 2])}.get(colour, whole)
    options = {"subsampling": {(1, 1): "444", (2, 1): "422", (2, 2): "420"}[subsampling]} if subsampling else {}
    step = 16 if tiled else 64
    blocks = [
        jpeg(pixels[top : top + 16, left : left + step].squeeze(), space, **options)
        for top, left in itertools.product(range(0, 48, 16), range(0, 64, step))
    ]
    layout = Layout(compression="JPEG", tile=(16, 16) if tiled else None, rows=16)
    tags: Tags = {530: ("H", subsampling)} if subsampling else {}
    found = read(assemble(blocks, pixels.shape, Kind(colour), layout, tags))
    expected = rgb(Image.fromarray(pixels.squeeze(), "CMYK" if colour == CMYK else None))
    assert np.abs(found - expected).mean() < 3


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2), (4, 2), None])
@pytest.mark.parametrize(
    "layout", [PLAIN, Layout(rows=16), Layout(tile=(32, 16)), Layout(compression="LZW", rows=16)], ids=named
)
def test_ycbcr_that_is_no_jpeg_is_read(subsampling: tuple[int, int] | None, layout: Layout) -> None:
    whole = np.asarray(Image.fromarray(photo()).convert("YCbCr"))
    across, down = subsampling or (2, 2)
    wide, high = layout.tile or (64, layout.rows or 48)
    blocks = []
    for top, left in itertools.product(range(0, 48, high), range(0, 64, wide)):
        units = [
            whole[top + y : top + y + down, left + x : left + x + across]
            for y, x in itertools.product(range(0, high, down), range(0, wide, across))
        ]
        raw = b"".join(
            unit[:, :, 0].tobytes() + bytes([round(unit[:, :, 1].mean()), round(unit[:, :, 2].mean())])
            for unit in units
        )
        blocks.append(bytes(imagecodecs.lzw_encode(raw)) if layout.compression == "LZW" else raw)
    blob = assemble(blocks, whole.shape, Kind(YCBCR), layout, {530: ("H", subsampling or [])})
    assert np.abs(read(blob) - photo()).mean() < 4


def test_ycbcr_without_anything_else_keeps_the_bytes_that_pillow_gives() -> None:
    pixels = np.asarray(Image.fromarray(photo()).convert("YCbCr"))
    blob = tiff(pixels, Kind(YCBCR), tags={530: ("H", [1, 1])})
    with Image.open(BytesIO(blob)) as image:
        assert np.array_equal(read(blob), rgb(image))


def test_a_subsampling_that_cannot_be_is_damage() -> None:
    with pytest.raises(InvalidImageError):
        decode_image(tiff(photo(), Kind(YCBCR), tags={530: ("H", [3, 0])}))


@pytest.mark.parametrize("fill", [1, 2])
@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_faxes_are_read_whichever_bit_comes_first(compression: str, fill: int) -> None:
    page = Image.fromarray(photo()[:, :, 0] % 16 * 16).convert("1")
    file = BytesIO()
    page.save(file, "TIFF", compression=compression)
    with tifffile.TiffFile(BytesIO(file.getvalue())) as other:
        first = other.pages.first
        assert np.array_equal(first.asarray() ^ (first.photometric == 0), np.asarray(page))
        tags: Tags = {tag: ("I", [int(first.tags[tag].value)]) for tag in (259, 292, 293) if tag in first.tags}
        pieces = [file.getvalue()[at : at + n] for at, n in zip(first.dataoffsets, first.databytecounts, strict=True)]
        rows, colour = first.rowsperstrip, int(first.photometric)
    if fill == 2:
        pieces = [piece.translate(REVERSED) for piece in pieces]
    blob = assemble(pieces, (48, 64, 1), Kind(colour, 1), Layout(fill=fill, rows=rows), tags)
    assert np.array_equal(read(blob), rgb(page))


def test_old_jpeg_is_read_as_before() -> None:
    """A whole JPEG beside its own tables, as Wang's and Kofax's programs wrote it."""
    data = jpeg(photo(), "YCBCR", subsampling="444")
    tags: Tags = {513: ("I", [8]), 514: ("I", [len(data)]), 530: ("H", [1, 1]), 262: ("H", [])}
    blob = assemble([data], (48, 64, 3), Kind(YCBCR), Layout(compression="old JPEG"), tags)
    assert np.abs(read(blob) - photo()).mean() < 4


# --- the file around it ---


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bigtiff_is_read_in_either_order_of_bytes(order: str, bits: int) -> None:
    kind, samples = Kind(RGB, bits), samples_of(Kind(RGB, bits))
    blob = assemble([samples.astype(f"{order}u{bits // 8}").tobytes()], samples.shape, kind, Layout(order), big=True)
    assert np.array_equal(tifffile.imread(BytesIO(blob)), samples)
    np.testing.assert_allclose(read(blob), shown(samples, kind), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_upright_whatever_it_was_asked(orientation: int) -> None:
    samples = samples_of(Kind(RGB))
    blob = tiff(samples, Kind(RGB), tags={274: ("H", [orientation])})
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(samples)
    turned.info["exif"] = exif.tobytes()
    for apply in (False, True):
        assert np.array_equal(read(blob, apply_orientation=apply), rgb(ImageOps.exif_transpose(turned)))


def test_xmp_says_what_is_up_where_no_tag_does() -> None:
    samples, xmp = samples_of(Kind(RGB)), list(b'<x tiff:Orientation="6"/>')
    assert decode_image(tiff(samples, Kind(RGB), tags={700: ("B", xmp)})).size == (HEIGHT, WIDTH)
    assert decode_image(tiff(samples, Kind(RGB), tags={700: ("B", xmp), 274: ("H", [1])})).size == (WIDTH, HEIGHT)


def test_a_length_told_wrongly_harms_no_strip_that_is_not_compressed() -> None:
    samples = samples_of(Kind(RGB))
    wrong: list[Tags] = [{279: ("I", [0])}, {279: ("I", [])}, {279: ("I", [7])}]
    for tags in wrong:
        assert np.array_equal(read(tiff(samples, Kind(RGB), tags=tags)), samples)


def test_lengths_of_compressed_strips_may_be_left_out_where_the_decoder_can_guess_them() -> None:
    samples = samples_of(Kind(RGB))
    blob = tiff(samples, Kind(RGB), Layout(compression="LZW"), {279: ("I", [])})
    assert np.array_equal(read(blob), samples)


def test_black_and_white_are_not_guessed_unless_everybody_does() -> None:
    forgotten: Tags = {262: ("H", [])}
    deep, grey = Kind(BLACK_IS_ZERO, 16), Kind(BLACK_IS_ZERO)
    np.testing.assert_allclose(
        read(tiff(samples_of(deep), deep, tags=forgotten)),
        shown(samples_of(deep), deep),
        atol=1,
    )
    with pytest.raises(UnsupportedImageFormatError, match="whether white or black is zero"):
        decode_image(tiff(samples_of(grey), grey, tags=forgotten))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({259: ("H", [50001])}, "WebP inside"),
        ({259: ("H", [50002])}, "JPEG XL inside"),
        ({259: ("H", [34712])}, "JPEG 2000 inside"),
        ({259: ("H", [34676])}, "compression 34676 inside"),
        ({262: ("H", [32803])}, "photometric interpretation 32803"),
        ({258: ("H", [8, 8, 4])}, "samples of different kinds"),
        ({277: ("H", [2])}, "2 x 8 bits as photometric"),
        ({317: ("H", [2])}, "a predictor without the compression"),
        ({259: ("H", [5]), 317: ("H", [3])}, "predictor 3"),
        ({259: ("H", [4])}, "fax compression"),
        ({259: ("H", [7]), 258: ("H", [16, 16, 16])}, "JPEG compression of"),
    ],
    ids=str,
)
def test_a_form_of_tiff_that_is_not_read_is_called_by_its_name(tags: Tags, words: str) -> None:
    with pytest.raises(UnsupportedImageFormatError, match=f"^This form of TIFF is not read: .*{words}"):
        decode_image(tiff(samples_of(Kind(RGB)), Kind(RGB), tags=tags))


@pytest.mark.parametrize(
    "tags",
    [
        {273: ("I", [2**31])},
        {273: ("I", [])},
        {257: ("I", [10 * HEIGHT])},
    ],
    ids=str,
)
def test_strips_that_are_not_there_are_missed(tags: Tags) -> None:
    with pytest.raises(TruncatedImageError):
        decode_image(tiff(samples_of(Kind(RGB)), Kind(RGB), Layout(rows=7), tags))


@pytest.mark.parametrize(
    ("kind", "layout", "tags"),
    [
        (Kind(RGB), PLAIN, {256: ("I", [0])}),
        (Kind(RGB), PLAIN, {278: ("I", [0])}),
        (Kind(RGB), Layout(tile=(16, 16)), {322: ("I", [])}),
        (Kind(PALETTE, 8, palette=palette(4)), PLAIN, {}),
        (Kind(PALETTE, 8), PLAIN, {}),
        (Kind(BLACK_IS_ZERO), Layout(compression="LZW", fill=2), {279: ("I", [])}),
    ],
    ids=named,
)
def test_a_directory_that_cannot_be_is_damage(kind: Kind, layout: Layout, tags: Tags) -> None:
    samples = samples_of(Kind(kind.colour, kind.bits, kind.kind))
    with pytest.raises(InvalidImageError):
        decode_image(tiff(samples, kind, layout, tags))
