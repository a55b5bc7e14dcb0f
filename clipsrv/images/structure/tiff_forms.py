"""The forms of TIFF that are known to be read right; any other is refused, since decoders give some other image of it.

Each was written by hand and compared with what is in it and with an independent reader; tests/images/test_tiff_forms.py
does so again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clipsrv.images.structure import tiff_tags as tags
from clipsrv.images.structure.header import Size, damaged, unsupported

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
_CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
NONE, FAX, OLD_JPEG, JPEG, PACKBITS = 1, {2, 3, 4}, 6, 7, 32773
#: LZW, Deflate by its two numbers, LZMA and Zstandard: those that a predictor goes with.
PREDICTED = {5, 8, 32946, 34925, 50000}
_COMPRESSIONS = {NONE, OLD_JPEG, JPEG, *FAX, PACKBITS, *PREDICTED}
_NAMES = {34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"}
_ALPHA = 2

#: Kind of colour, bits of a sample and what these are; then the extra samples that may follow.
_FORMS: dict[tuple[int, int, int], set[tuple[int, ...]]] = {
    **{(grey, bits, UNSIGNED): {()} for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8, 12, 16, 32)},
    **{(grey, bits, SIGNED): {()} for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (16, 32)},
    **{(grey, 32, FLOAT): {()} for grey in (WHITE_IS_ZERO, BLACK_IS_ZERO)},
    (BLACK_IS_ZERO, 8, UNSIGNED): {(), (0,), (2,)},
    **{(PALETTE, bits, UNSIGNED): {()} for bits in (1, 2, 4)},
    (PALETTE, 8, UNSIGNED): {(), (0,), (2,)},
    (RGB, 8, UNSIGNED): {(), (999,), *((first, *(0,) * rest) for first in (0, 1, 2) for rest in range(3))},
    (RGB, 16, UNSIGNED): {(), (0,), (1,), (2,)},
    (CMYK, 8, UNSIGNED): {(), (0,), (0, 0)},
    (CMYK, 16, UNSIGNED): {()},
    (YCBCR, 8, UNSIGNED): {()},
    (LAB, 8, UNSIGNED): {()},
}


@dataclass(frozen=True)
class Form:
    """How the pixels of a TIFF are stored. `block` is the size of a strip or tile; `high_first` the order of bytes."""

    size: Size
    block: Size
    tiled: bool
    colour: int
    samples: int
    bits: int
    kind: int
    extra: tuple[int, ...]
    planar: bool
    compression: int
    predictor: int
    high_first: bool
    #: Of YCbCr: so many columns and rows share their colour.
    subsampling: Size

    @property
    def planes(self) -> int:
        return self.samples if self.planar else 1

    @property
    def blocks(self) -> int:
        """Strips or tiles in all planes."""
        across, down = -(-self.size.width // self.block.width), -(-self.size.height // self.block.height)
        return across * down * self.planes


def form_of(order: str, found: Mapping[int, tags.Values]) -> Form:
    """The form that the tags of a directory say. Raises UnsupportedImageFormatError unless it is read right."""
    compression = tags.one(found, tags.COMPRESSION, NONE)
    if compression not in _COMPRESSIONS:
        raise unsupported("TIFF", f"{_NAMES.get(compression, f'compression {compression}')} inside")
    colour = _colour(found, compression)
    samples = tags.one(found, tags.SAMPLES, 3 if compression in (OLD_JPEG, JPEG) and colour in (RGB, YCBCR) else 1)
    extra = tags.many(found, tags.EXTRA_SAMPLES)
    if not extra and (colour, samples) == (RGB, 4):
        extra = (_ALPHA,)  # as everybody takes it who left it out
    planar = samples > 1 and tags.one(found, tags.PLANAR, 1) != 1
    if planar and extra and not any(extra):
        samples, extra = samples - len(extra), ()  # planes that mean nothing stand behind those that do
    size = Size(tags.one(found, tags.WIDTH, 0), tags.one(found, tags.HEIGHT, 0))
    tiled = tags.TILE_OFFSETS in found
    if tiled:
        block = Size(tags.one(found, tags.TILE_WIDTH, 0), tags.one(found, tags.TILE_HEIGHT, 0))
    else:
        block = Size(size.width, min(tags.one(found, tags.ROWS, size.height), size.height))
    if min(*size, *block) <= 0:
        raise damaged("TIFF")
    form = Form(
        size,
        block,
        tiled,
        colour,
        samples,
        bits=_same(found, tags.BITS, 1, samples),
        kind=_same(found, tags.SAMPLE_FORMAT, UNSIGNED, samples),
        extra=extra,
        planar=planar and samples > 1,
        compression=compression,
        predictor=tags.one(found, tags.PREDICTOR, 1),
        high_first=order == ">",
        subsampling=_subsampling(found) if colour == YCBCR else Size(1, 1),
    )
    _check(form)
    return form


def _colour(found: Mapping[int, tags.Values], compression: int) -> int:
    """The photometric interpretation; where a file forgot it, what everybody takes it for, if they agree."""
    bits = tags.one(found, tags.BITS, 1)
    forgotten = WHITE_IS_ZERO if compression in FAX else BLACK_IS_ZERO if bits > 8 else -1
    colour = YCBCR if compression == OLD_JPEG else tags.one(found, tags.PHOTOMETRIC, forgotten)
    if colour == -1:
        raise unsupported("TIFF", "it does not say whether white or black is zero")
    if colour not in _CHANNELS:
        raise unsupported("TIFF", f"photometric interpretation {colour}")
    return colour


def _subsampling(found: Mapping[int, tags.Values]) -> Size:
    sides = tags.many(found, tags.SUBSAMPLING)
    size = Size(*sides) if len(sides) == 2 else Size(2, 2)  # what it is where nothing is said
    if not {*size} <= {1, 2, 4}:
        raise damaged("TIFF")
    return size


def _check(form: Form) -> None:
    shape = f"{form.samples} x {form.bits} bits" + {SIGNED: ", signed", FLOAT: ", floating"}.get(form.kind, "")
    allowed = _FORMS.get((form.colour, form.bits, form.kind), set())
    if form.samples != _CHANNELS[form.colour] + len(form.extra) or form.extra not in allowed:
        raise unsupported("TIFF", f"{shape} as photometric interpretation {form.colour}")
    if form.planar and (form.colour == LAB or form.extra not in ((), (1,), (_ALPHA,))):
        raise unsupported("TIFF", f"{shape} in planes")
    if form.compression in FAX and (form.bits, form.samples) != (1, 1):
        raise unsupported("TIFF", f"fax compression of {shape}")
    if form.compression in (OLD_JPEG, JPEG) and (form.bits, form.kind) != (8, UNSIGNED):
        raise unsupported("TIFF", f"JPEG compression of {shape}")
    if form.predictor != 1:
        if form.compression in (NONE, PACKBITS):
            raise unsupported("TIFF", "a predictor without the compression it belongs to")
        if form.predictor != (3 if form.kind == FLOAT else 2) or form.bits not in (8, 16, 32):
            raise unsupported("TIFF", f"predictor {form.predictor} of {shape}")
    if form.bits == 32 and form.high_first and form.compression != NONE:
        raise unsupported("TIFF", f"compressed {shape}, the high byte first")


def _same(found: Mapping[int, tags.Values], tag: int, default: int, samples: int) -> int:
    """The one value of a tag that has one for each sample."""
    values = set(tags.many(found, tag)[:samples]) or {default}
    if len(values) > 1:
        raise unsupported("TIFF", f"samples of different kinds (tag {tag})")
    return values.pop()
