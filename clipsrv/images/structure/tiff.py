"""TIFF 6.0: the first image, made anew as a file with nothing else in it, in the words that decoders read right."""

from __future__ import annotations

import zlib
from collections import Counter
from itertools import zip_longest

import numpy as np

from clipsrv.images.structure import jpeg, jpeg_scans
from clipsrv.images.structure import tiff_tags as tags
from clipsrv.images.structure.header import (
    BYTES_PER_PIXEL,
    DEEP_BYTES_PER_PIXEL,
    PLAIN,
    RANGED_BYTES_PER_PIXEL,
    Count,
    Header,
    Kind,
    Levels,
    damaged,
    truncated,
)
from clipsrv.images.structure.tiff_forms import (
    BLACK_IS_ZERO,
    FLOAT,
    JPEG,
    NONE,
    OLD_JPEG,
    PALETTE,
    PREDICTED,
    RGB,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    Form,
    form_of,
)

#: Bytes of compressed strips or tiles that may be read beyond those of the file: empty ones often share what they have.
MAX_BYTES_AGAIN = 1 << 24

_DEFLATE, _LOW_BIT_FIRST = 8, 2
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def read(data: bytes) -> Header:
    """What a TIFF says of its first image. Raises ImageError."""
    order, found = tags.read_directory(data)
    form = form_of(order, found)
    deep = form.bits > 8
    levels = _levels(form) if deep and form.samples == 1 else PLAIN
    each = (BYTES_PER_PIXEL, DEEP_BYTES_PER_PIXEL)[deep] if levels.top else RANGED_BYTES_PER_PIXEL
    # A tile may be larger than its image, and what lies beyond the edge is decoded all the same: with many narrow ones
    # that is nearly all. Of an honest image it is less than half.
    claimed = max(form.size.pixels, form.block.pixels, form.blocks // form.planes * form.block.pixels // 2)
    return Header(
        "TIFF",
        form.size,
        _anew(data, order, found, form),
        claimed,
        each * claimed,
        Kind.DEEP if deep else Kind.PLAIN,
        levels=levels,
        ycbcr=_is_plain_ycbcr(form),
    )


def _levels(form: Form) -> Levels:
    """What the numbers of a grey image of more than 8 bits mean, which is not left to the decoder."""
    if form.kind == FLOAT:
        return Levels(top=None, inverted=form.colour == WHITE_IS_ZERO)
    natural = form.kind != SIGNED and form.bits <= 16
    return Levels(
        dtype=f"{'i' if form.kind == SIGNED else 'u'}{4 if form.bits == 32 else 2}",
        top=(1 << form.bits) - 1 if natural else None,
        inverted=form.colour == WHITE_IS_ZERO,
    )


def _anew(data: bytes, order: str, found: dict[int, tags.Values], form: Form) -> bytes:
    offsets, counts = (tags.TILE_OFFSETS, tags.TILE_BYTES) if form.tiled else (tags.STRIP_OFFSETS, tags.STRIP_BYTES)
    places, sizes = (tags.many(found, tag)[: form.blocks] for tag in (offsets, counts))
    if len(places) < form.blocks:
        raise truncated()
    kept = {
        **found,
        tags.BITS: (form.bits,) * form.samples,
        tags.SAMPLES: (form.samples,),
        tags.PLANAR: (2 if form.planar else 1,),
        tags.PHOTOMETRIC: (_colour_to_decoders(form),),
        tags.SAMPLE_FORMAT: (FLOAT if form.kind == FLOAT else UNSIGNED,) * form.samples,
    }
    kept.pop(tags.EXTRA_SAMPLES, None)
    if form.extra:
        kept[tags.EXTRA_SAMPLES] = form.extra
    if form.compression not in PREDICTED:
        kept.pop(tags.PREDICTOR, None)
    if tags.ORIENTATION in kept:
        kept.pop(tags.XMP, None)  # which is asked only where nothing else says what is up
    kept.pop(tags.COLORMAP, None)
    if form.colour == PALETTE:
        kept[tags.COLORMAP] = _palette(found, form)
    low_bit_first = kept.pop(tags.FILL_ORDER, None) == (_LOW_BIT_FIRST,)
    if form.compression != NONE:
        _judge_blocks(data, places, sizes, form)
    if form.compression == NONE:
        sizes = _bytes_of_blocks(form)
        kept[tags.COMPRESSION] = (_DEFLATE,)
    if form.compression == NONE or (low_bit_first and form.compression not in (OLD_JPEG, JPEG)):
        data, places, sizes = _blocks_anew(data, places, sizes, form, low_bit_first=low_bit_first)
    kept[offsets] = places
    if sizes:
        kept[counts] = sizes
    # The order of bytes matters to samples of 16 bits alone: those of 32 are put in order.
    return tags.write_directory(data, order if form.bits == 16 else "<", kept)


def _judge_blocks(data: bytes, places: tuple[int, ...], sizes: tuple[int, ...], form: Form) -> None:
    """Counts what decoders read of compressed strips or tiles, again for each that it stands for, since what comes
    before the first pixel may be long; and the scans of JPEGs. Raises ImageError."""
    used = Counter(zip_longest(places, sizes[: len(places)], fillvalue=len(data)))
    read = Count(len(data) + MAX_BYTES_AGAIN, "TIFF", "bytes in its strips or tiles")
    visits = 0
    for (start, size), times in used.items():
        read.add(max(min(size, len(data) - start), 0) * times)
        if form.compression == JPEG:
            visits += times * jpeg.visits(data[start : start + size])
    jpeg_scans.judge(visits, form.size.pixels, "TIFF")


def _colour_to_decoders(form: Form) -> int:
    """The photometric interpretation, where it is theirs to know."""
    if form.bits > 8 and form.samples == 1:
        return BLACK_IS_ZERO
    return RGB if _is_plain_ycbcr(form) else form.colour


def _is_plain_ycbcr(form: Form) -> bool:
    """Whether there is nothing to do but to convert colours, which Pillow itself does."""
    return form.colour == YCBCR and form.compression == NONE and form.subsampling == (1, 1)


def _blocks_anew(
    data: bytes, places: tuple[int, ...], sizes: tuple[int, ...], form: Form, *, low_bit_first: bool
) -> tuple[bytes, tuple[int, ...], tuple[int, ...]]:
    """Strips or tiles with their bits and bytes in order, where they lie, and their lengths.

    Uncompressed ones are stored as Deflate does: libtiff then reads them all, where Pillow itself would not read those
    in planes. One that stands for several is written once. Raises ImageTooComplexError where others overlap.
    """
    if len(sizes) < len(places):
        raise damaged("TIFF")
    pieces, at = [bytes(8)], 8
    written: dict[tuple[int, int], tuple[int, int]] = {}
    read = Count(len(data), "TIFF", "bytes in its strips or tiles")
    for start, size in zip(places, sizes, strict=False):
        if (start, size) in written:
            continue
        if start + size > len(data):
            raise truncated()
        read.add(size)
        block = data[start : start + size]
        if low_bit_first:
            block = block.translate(_REVERSED)
        if form.bits == 32 and form.high_first:
            block = np.frombuffer(block, np.uint32).byteswap().tobytes()
        pieces.append(zlib.compress(block, 0) if form.compression == NONE else block)
        written[start, size] = at, len(pieces[-1])
        at += len(pieces[-1])
    offsets, lengths = zip(*(written[block] for block in zip(places, sizes, strict=False)), strict=True)
    return b"".join(pieces), offsets, lengths


def _bytes_of_blocks(form: Form) -> tuple[int, ...]:
    """The length of each uncompressed strip or tile, which the file may tell wrongly."""
    each = form.blocks // form.planes
    if form.tiled:
        return (_bytes_of_rows(form, form.block.height),) * form.blocks
    last = form.size.height - (each - 1) * form.block.height
    return ((_bytes_of_rows(form, form.block.height),) * (each - 1) + (_bytes_of_rows(form, last),)) * form.planes


def _bytes_of_rows(form: Form, rows: int) -> int:
    across, down = form.subsampling
    if form.planar or (across, down) == (1, 1):
        return rows * -(-form.block.width * (1 if form.planar else form.samples) * form.bits // 8)
    # Pixels that share their colour stand together, and the colour behind them.
    return -(-form.block.width // across) * -(-rows // down) * (across * down + 2)


def _palette(found: dict[int, tags.Values], form: Form) -> tuple[int, ...]:
    """The palette in 16 bits; where no entry needs more than 8, they are taken for 8, as libtiff does."""
    entries = tags.many(found, tags.COLORMAP)
    if len(entries) < 3 << form.bits:
        raise damaged("TIFF")
    entries = entries[: 3 << form.bits]
    return entries if max(entries) > 255 else tuple(257 * entry for entry in entries)
