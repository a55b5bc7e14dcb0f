"""WebP (RFC 9649): its canvas, and the chunks up to the first frame's pixels."""

from __future__ import annotations

from struct import unpack_from

from clipsrv.images.structure.header import Header, Kind, Size, damaged, truncated, within

#: Before the first frame's pixels: profiles, Exif, the animation's own, and what nobody knows.
MAX_CHUNKS = 10_000

#: A canvas, the one before, the decoded frame, its bytes, and the image made of them.
_BYTES_PER_PIXEL = 22
#: Lossless pixels may come in as many groups of Huffman codes as there are blocks of 4 x 4 pixels; each takes at least
#: 20 bits in the file and 5 tables of 256 entries in memory, which longer codes make larger by so much for each byte,
#: up to the last number (libwebp's vp8l_dec.c).
_BLOCK, _BITS_OF_GROUP, _MAX_GROUPS = 4, 20, 65_536
_BYTES_OF_GROUP, _BYTES_OF_CODES, _MAX_BYTES_OF_GROUP = 6000, 150, 20_600


def read(data: bytes) -> Header:
    """What a WebP says of itself. Raises ImageError."""
    first = data[12:16]
    if not data.startswith(b"RIFF") or data[8:12] != b"WEBP" or len(data) < 30:
        raise damaged("WEBP")
    if first == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in unpack_from("<HH", data, 26))
    elif first == b"VP8L" and data[20] == 0x2F:
        (bits,) = unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif first == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    else:
        raise damaged("WEBP")
    size = Size(width, height)
    lossless = _lossless_bytes(data)
    groups = min(-(-width // _BLOCK) * -(-height // _BLOCK), 8 * lossless // _BITS_OF_GROUP, _MAX_GROUPS)
    return Header(
        "WEBP",
        size,
        data,
        size.pixels,
        _BYTES_PER_PIXEL * size.pixels
        + min(_BYTES_OF_GROUP * groups + _BYTES_OF_CODES * lossless, _MAX_BYTES_OF_GROUP * groups),
        Kind.CANVAS,
    )


def _lossless_bytes(data: bytes) -> int:
    """Bytes of the first frame that are coded without loss: its pixels, or its transparency."""
    at, lossless = 12, 0
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            raise truncated()
        kind, length = data[at : at + 4], unpack_from("<I", data, at + 4)[0]
        if kind in (b"VP8L", b"ALPH"):
            lossless += min(length, len(data) - at)
        if kind in (b"VP8 ", b"VP8L"):
            return lossless
        # A frame holds chunks of its own behind 16 bytes.
        at += 8 + (16 if kind == b"ANMF" else length + length % 2)
    return within(MAX_CHUNKS + 1, MAX_CHUNKS, "WebP", "chunks before its pixels")
