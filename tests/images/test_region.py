"""A part of an image: to the bit what the same part is that was saved without loss and sent alone, in every form."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipsrv.errors import AspectRatioTooLargeError, CropOutsideImageError, InvalidImageError
from clipsrv.images.decode import decode, decode_image
from clipsrv.images.formats import FORMATS
from clipsrv.images.open import open_image
from clipsrv.images.region import Cropped, Region
from clipsrv.models.model import Model
from clipsrv.settings import Decoding, ImageLimits
from tests.images.test_decode import oriented
from tests.support.photos import encode, opened, same
from tests.support.tiffs import (
    BLACK_IS_ZERO,
    CMYK,
    LAB,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    Kind,
    Tags,
    palette,
    samples_of,
    tiff,
)

PHOTO = opened("rocket.jpg").resize((120, 88))
#: Off centre, of odd sides.
PART = Region(31, 17, 45, 39)
SMALL_PART = Region(5, 9, 17, 13)


def part_of(blob: bytes, region: Region, *, apply_orientation: bool = True) -> Image.Image:
    return decode(open_image(blob, region=region), apply_orientation=apply_orientation)


def slices(region: Region) -> tuple[slice, slice]:
    return slice(region.top, region.top + region.height), slice(region.left, region.left + region.width)


@pytest.mark.parametrize("format", FORMATS)
def test_of_every_format_a_part_is_what_it_is_saved_without_loss(format: str) -> None:
    blob = encode(PHOTO, format)
    alone = encode(Image.fromarray(np.asarray(decode_image(blob))[slices(PART)]))
    assert same(part_of(blob, PART), decode_image(alone))


MODES = {
    "1": "PNG",
    "L": "JPEG",
    "LA": "PNG",
    "P": "PNG",
    "RGBA": "WEBP",
    "CMYK": "JPEG",
    "YCbCr": "JPEG",
    "I;16": "PNG",
    "I": "TIFF",
    "F": "TIFF",
}


@pytest.mark.parametrize("mode", MODES)
def test_of_every_mode_a_part_is_saved_in_that_mode_and_sent_alone(mode: str) -> None:
    """Numbers without a natural range are stretched from the lowest to the highest of the part, not of the whole."""
    levels = np.asarray(PHOTO.convert("L"))
    if mode == "I;16":
        whole = Image.fromarray((levels.astype(np.uint16) * 257) ^ 0x55)
    elif mode in "IF":
        whole = Image.fromarray(levels.astype(np.int32) * 1001 if mode == "I" else levels / np.float32(7))
    else:
        whole = PHOTO.quantize(64) if mode == "P" else PHOTO.convert(mode)
    blob = encode(whole, MODES[mode])
    with Image.open(BytesIO(blob)) as stored:
        cut = stored.crop((PART.left, PART.top, PART.left + PART.width, PART.top + PART.height))
        alone = encode(cut, "TIFF" if mode in ("I;16", "I", "F", "CMYK") else "PNG")
    assert same(part_of(blob, PART), decode_image(alone))


TIFFS = [
    *(Kind(colour, bits) for colour in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 4, 8, 16, 32)),
    *(Kind(colour, bits, kind) for colour in (WHITE_IS_ZERO, BLACK_IS_ZERO) for kind, bits in (("i", 16), ("f", 32))),
    *(Kind(BLACK_IS_ZERO, 12), Kind(RGB), Kind(RGB, 16), Kind(RGB, extra=(2,)), Kind(CMYK), Kind(YCBCR), Kind(LAB)),
    *(Kind(PALETTE, 4, palette=palette(4)), Kind(PALETTE, 8, palette=palette(8, entries_of_8_bits=True))),
]


@pytest.mark.parametrize("kind", TIFFS, ids=lambda kind: f"{kind.colour}-{kind.bits}{kind.kind}-{kind.extra}")
def test_of_a_tiff_of_any_kind_a_part_is_a_tiff_of_its_samples(kind: Kind) -> None:
    samples = samples_of(kind)
    part = SMALL_PART if kind.bits % 8 == 0 else Region(8, 9, 16, 13)
    tags: Tags = {530: ("H", [1, 1])} if kind.colour == YCBCR else {}
    alone = decode_image(tiff(samples[slices(part)], kind, tags=tags))
    assert same(part_of(tiff(samples, kind, tags=tags), part), alone)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_part_is_one_of_the_upright_image(format: str, orientation: int) -> None:
    blob = encode(PHOTO, format, exif=oriented(orientation))
    with Image.open(BytesIO(blob)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.asarray(part_of(blob, PART)), np.asarray(upright)[slices(PART)])
    if format != "TIFF":  # which Pillow turns by itself
        as_stored = np.asarray(decode_image(blob, apply_orientation=False))[slices(PART)]
        assert np.array_equal(np.asarray(part_of(blob, PART, apply_orientation=False)), as_stored)


def test_a_part_is_cut_out_of_all_pixels_where_large_jpegs_are_decoded_smaller(model: Model) -> None:
    fast = replace(model, decoding=Decoding(fast=True))
    blob, part = encode(opened("rocket.jpg"), "JPEG"), Region(3, 101, 401, 305)
    alone = encode(Image.fromarray(np.asarray(decode_image(blob))[slices(part)]))
    found = fast.read_image(Cropped(blob, part), ImageLimits())
    assert np.array_equal(found, fast.read_image(alone, ImageLimits()))
    assert fast.open_image(blob, ImageLimits()).reduce_to is not None
    assert fast.open_image(Cropped(blob, part), ImageLimits()).reduce_to is None


def test_the_whole_image_and_a_corner_of_one_pixel_are_parts_too() -> None:
    blob = encode(PHOTO)
    assert same(part_of(blob, Region(0, 0, *PHOTO.size)), PHOTO)
    assert part_of(blob, Region(119, 87, 1, 1)).getpixel((0, 0)) == PHOTO.getpixel((119, 87))


@pytest.mark.parametrize(
    "region",
    [
        Region(0, 0, 121, 88),
        Region(0, 1, 120, 88),
        Region(120, 0, 1, 1),
        Region(-1, 0, 10, 10),
        Region(0, -1, 10, 10),
        Region(0, 0, 0, 10),
        Region(0, 0, 10, 0),
        Region(10, 10, -5, -5),
        Region(2**63, 2**63, 2**64 - 1, 2**64 - 1),
    ],
    ids=str,
)
def test_what_is_not_inside_the_image_is_refused(region: Region) -> None:
    with pytest.raises(CropOutsideImageError, match=r"no part of an image|not inside the image"):
        part_of(encode(PHOTO), region)


def test_a_part_of_an_image_on_its_side_is_inside_as_it_is_seen() -> None:
    blob = encode(PHOTO, "JPEG", exif=oriented(6))
    assert part_of(blob, Region(0, 0, 88, 120)).size == (88, 120)
    with pytest.raises(CropOutsideImageError, match="88x120 pixels, upright"):
        part_of(blob, Region(0, 0, 120, 88))


def test_a_part_is_held_to_the_limits_of_an_image() -> None:
    blob = encode(Image.new("L", (3000, 20)))
    with pytest.raises(AspectRatioTooLargeError, match="2500x2 pixels") as refused:
        part_of(blob, Region(0, 0, 2500, 2))
    assert refused.value.code == "aspect_ratio_too_large"


def test_a_part_without_a_finite_value_is_refused_as_such_an_image_is() -> None:
    levels = np.arange(64, dtype=np.float32).reshape(8, 8)
    levels[:4, :4] = np.nan
    blob = encode(Image.fromarray(levels), "TIFF")
    assert part_of(blob, Region(2, 2, 4, 4)).size == (4, 4)
    with pytest.raises(InvalidImageError, match="no finite pixel"):
        part_of(blob, Region(0, 0, 4, 4))
