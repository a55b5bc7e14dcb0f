"""BMP and DIB (Windows' bitmaps): their header."""

from __future__ import annotations

from struct import unpack_from

from clipsrv.images.structure.header import BYTES_PER_PIXEL, Header, Kind, Size, damaged, unsupported

#: Lengths of the header; the first is OS/2's.
_OLD, _LENGTHS = 12, {12, 40, 52, 56, 64, 108, 124}
_RAW, _RLE8, _RLE4, _BITFIELDS = range(4)
#: Masks of red, green, blue (and alpha, with 32 bits) that Pillow reads, by the bits of a pixel.
_MASKS: dict[int, set[tuple[int, ...]]] = {
    16: {(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)},
    24: {(0xFF0000, 0xFF00, 0xFF)},
    32: {
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        (0, 0, 0, 0),
    },
}


def read_bmp(data: bytes) -> Header:
    """What a BMP says of itself. Raises ImageError."""
    return _read(data, 14, "BMP")


def read_dib(data: bytes) -> Header:
    """What a BMP without its file header says of itself. Raises ImageError."""
    return _read(data, 0, "DIB")


def _read(data: bytes, start: int, format: str) -> Header:
    (length,) = unpack_from("<I", data, start)
    if length not in _LENGTHS:
        raise unsupported("BMP", f"its header has {length} bytes")
    if length == _OLD:
        width, height, _, bits = unpack_from("<HHHH", data, start + 4)
        compression = _RAW
    else:
        width, height, _, bits, compression = unpack_from("<IiHHI", data, start + 4)
    if bits not in (1, 4, 8, 16, 24, 32):
        raise unsupported("BMP", f"{bits} bits a pixel")
    if compression == _BITFIELDS:
        count = 4 if length >= 56 else 3
        masks = unpack_from(f"<{count}I", data, start + 40)
        if bits == 32 and count == 3:
            masks = (*masks, 0)
        if (masks if bits == 32 else masks[:3]) not in _MASKS.get(bits, ()):
            raise unsupported("BMP", "its bit fields")
    elif compression not in (_RAW, _RLE8, _RLE4):
        raise unsupported("BMP", "its compression")
    elif compression and bits > 8:
        raise damaged("BMP")
    size = Size(width, abs(height))
    # Runs are decoded in Python, a few bytes a time.
    kind = Kind.CANVAS if compression in (_RLE8, _RLE4) else Kind.PLAIN
    return Header(format, size, data, size.pixels, BYTES_PER_PIXEL * size.pixels, kind)
