"""GIF (89a): the screen, and the extensions up to the first image."""

from __future__ import annotations

from struct import unpack_from

from clipsrv.images.structure.header import BYTES_PER_PIXEL, Header, Kind, Size, damaged, within

#: Before the first image: extensions and their blocks of up to 255 bytes; those of XMP have some 80.
MAX_BLOCKS = 100_000

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def read(data: bytes) -> Header:
    """What a GIF says of itself: its screen, made larger if the first image does not fit. Raises ImageError."""
    if not data.startswith((b"GIF87a", b"GIF89a")):
        raise damaged("GIF")
    width, height, flags = unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    blocks = 0
    while (kind := _byte(data, at)) != _IMAGE:
        blocks = within(blocks + 1, MAX_BLOCKS, "GIF", "blocks before its image")
        at += 1
        if kind == _TRAILER:
            raise damaged("GIF")
        if kind == _EXTENSION:
            at += 1
            while length := _byte(data, at):
                blocks = within(blocks + 1, MAX_BLOCKS, "GIF", "blocks before its image")
                at += 1 + length
            at += 1
    left, top, wide, high = unpack_from("<HHHH", data, at + 1)
    screen = Size(max(width, left + wide), max(height, top + high))
    return Header("GIF", screen, data, screen.pixels, BYTES_PER_PIXEL * screen.pixels, Kind.CANVAS)


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise damaged("GIF")
    return data[at]
