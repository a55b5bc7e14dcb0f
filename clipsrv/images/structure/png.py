"""PNG (W3C, third edition): its chunks. Those that say nothing of pixels, or are damaged, are left out.

Only the first image of an animation remains, which is the one that a decoder of still images shows.
"""

from __future__ import annotations

import zlib
from struct import unpack_from

from clipsrv.images.structure.header import (
    BYTES_PER_PIXEL,
    DEEP_BYTES_PER_PIXEL,
    Count,
    Header,
    Kind,
    Size,
    damaged,
    truncated,
    unsupported,
)

#: Of all kinds, where pixels usually come in chunks of 8 KiB or more; and of texts that are compressed.
MAX_CHUNKS, MAX_COMPRESSED = 100_000, 256
#: Bytes of a text or Exif chunk that may say what is up. A compressed one of more is refused by Pillow.
MAX_TEXT = 1 << 20

_MAGIC = b"\x89PNG\r\n\x1a\n"
#: Bits a level and kind of colour, as PNG allows them.
_FORMS = {(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3)} | {
    (bits, colour) for bits in (8, 16) for colour in (4, 6)
}
#: Ancillary chunks that may say what is up: Exif, and texts that hold XMP or Exif.
_EXIF, _PLAIN, _COMPRESSED, _INTERNATIONAL = b"eXIf", b"tEXt", b"zTXt", b"iTXt"
_EXIF_AS_TEXT = b"Raw profile type exif\0"
_INTERLACE = 1


def read(data: bytes) -> Header:
    """What a PNG says of itself. Raises ImageError."""
    if not data.startswith(_MAGIC):
        raise damaged("PNG")
    length, kind, width, height, bits, colour, _, _, interlace = unpack_from(">I4sIIBBBBB", data, 8)
    if kind == b"CgBI":
        raise unsupported("PNG", "Apple's own, for its devices")
    if kind != b"IHDR" or length != 13 or (bits, colour) not in _FORMS or interlace > _INTERLACE:
        raise damaged("PNG")
    pieces = _pieces(data)
    if pieces != [(0, len(data))]:
        data = b"".join(data[start:end] for start, end in pieces)
    size = Size(width, height)
    memory = DEEP_BYTES_PER_PIXEL if bits == 16 else BYTES_PER_PIXEL
    return Header("PNG", size, data, size.pixels, memory * size.pixels, Kind.DEEP if bits == 16 else Kind.PLAIN)


def _pieces(data: bytes) -> list[tuple[int, int]]:
    """What is kept of the file, from its first byte on."""
    pieces = [(0, len(_MAGIC))]
    chunks, compressed = Count(MAX_CHUNKS, "PNG", "chunks"), Count(MAX_COMPRESSED, "PNG", "compressed texts")
    at, pixels = len(_MAGIC), False
    while at + 8 <= len(data):
        chunks.add()
        length, kind = unpack_from(">I4s", data, at)
        end = at + 12 + length
        if not (kind.isalpha() and kind.isascii()):
            if pixels:
                break  # junk behind the pixels
            raise damaged("PNG")
        if end > len(data) and kind != b"IDAT":
            if pixels:
                break
            raise truncated()
        pixels = pixels or kind == b"IDAT"
        if not kind[0] & 0x20 or _is_kept(data, kind, at, end, compressed):
            if pieces[-1][1] == at:
                pieces[-1] = (pieces[-1][0], end)
            else:
                pieces.append((at, end))
        at = end
        if kind == b"IEND":
            break
    if not pixels:
        raise truncated()
    return pieces


def _is_kept(data: bytes, kind: bytes, start: int, end: int, compressed: Count) -> bool:
    """Whether an ancillary chunk may say what is up, and is whole."""
    body = start + 8
    if kind == _COMPRESSED:
        compressed.add()
        method = data.find(b"\0", body, end - 4) + 1
        wanted = not method or method >= end - 4 or data[method] == 0
    elif kind == _INTERNATIONAL:
        flag = data.find(b"\0", body, end - 4) + 1
        packed = flag and flag < end - 4 and data[flag]
        if packed:
            compressed.add()
        wanted = bool(packed) or end - body <= MAX_TEXT
    else:
        wanted = kind == _EXIF or (kind == _PLAIN and data.startswith(_EXIF_AS_TEXT, body))
        wanted = wanted and end - body <= MAX_TEXT
    with memoryview(data) as view:
        return wanted and zlib.crc32(view[start + 4 : end - 4]).to_bytes(4, "big") == view[end - 4 : end]
