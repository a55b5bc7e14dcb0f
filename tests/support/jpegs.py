"""JPEG files put together segment by segment."""

from __future__ import annotations

import struct

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(blob: bytes, *segments: bytes) -> bytes:
    """A JPEG with more bytes right after its first marker."""
    return blob[:2] + b"".join(segments) + blob[2:]


def frame_at(blob: bytes) -> int:
    """Where the marker of a JPEG's frame header stands."""
    at = 2
    while blob[at + 1] not in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA):
        at += 2 + struct.unpack_from(">H", blob, at + 2)[0]
    return at


def progressive(width: int, height: int, scans: int, components: int = 1) -> bytes:
    """A legal black JPEG of so many scans, each of some bytes: all coefficients are zero."""
    blocks = -(-width // 8) * -(-height // 8)
    numbers = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, height, width, components) + b"".join(bytes([one, 0x11, 0]) for one in numbers)
    first = bytes([components]) + b"".join(bytes([one, 0]) for one in numbers) + b"\0\0\0"
    # One symbol says that 32,767 blocks have nothing more.
    runs = "0" + "1" * 14
    bits = runs * -(-blocks // 32_767)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join(
        (
            SOI,
            segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC2, frame),
            segment(0xC4, b"\0" + bytes([1, *[0] * 15]) + b"\0"),
            segment(0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\xe0"),
            segment(0xDA, first) + bytes(-(-blocks * components // 8)),
            *(segment(0xDA, bytes([1, 1 + scan % components, 0, 1, 63, 0])) + data for scan in range(scans - 1)),
            EOI,
        )
    )
