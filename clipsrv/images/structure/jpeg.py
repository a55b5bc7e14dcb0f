"""JPEG (ITU-T T.81, annex B): its segments up to the first scan, and how many scans there are.

Segments that say nothing of pixels are left out of what the decoder gets.
"""

from __future__ import annotations

import re
from struct import unpack_from

import numpy as np
from numpy.typing import NDArray

from clipsrv.images.structure.header import BYTES_PER_PIXEL, Header, Size, damaged, truncated, unsupported, within

#: Before the first scan. A colour profile takes up to 255 segments, a depth map some hundreds.
MAX_SEGMENTS, MAX_EXIF_SEGMENTS = 2000, 64
#: Bytes there: of no segment, which is padding or junk; and of quantization tables, of which four take 260.
MAX_JUNK = MAX_TABLES = 65_536
#: Encoders write some ten. Each takes time for all pixels, however few bytes it has.
MAX_SCANS = 100

_EOI, _SOS, _DQT, _COMMENT = 0xD9, 0xDA, 0xDB, 0xFE
#: Frames that are read, by how they are coded; lossless ones too, which libjpeg cannot decode smaller.
_SEQUENTIAL, _PROGRESSIVE, _LOSSLESS = {0xC0, 0xC1, 0xC9}, {0xC2, 0xCA}, {0xC3}
_ARITHMETIC = {0xC9, 0xCA}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
#: Markers without a segment, as Pillow has it.
_BARE = {0xC8, *range(0xD0, _SOS), *range(0xF0, 0xFE)}
#: Application segments that decoding looks at: JFIF and Adobe for the colours, Exif and XMP for what is up.
_KEPT = ((0xE0, b""), (0xE1, b"Exif\0\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xEE, b"Adobe"))
_NOT_FF = re.compile(rb"[^\xff]")
#: What it takes to compare an image with itself.
_BYTES_PER_PIXEL_COMPARED = BYTES_PER_PIXEL + 4
#: Bytes of coded data looked at together.
_PIECE = 1 << 20


class _Segments:
    """What stands before the first scan: the last frame header and its marker, and what is kept of the file."""

    def __init__(self) -> None:
        self.frame, self.marker = b"", 0
        self.kept: list[tuple[int, int]] = []
        self._count = self._exif = self._tables = 0

    def add(self, data: bytes, marker: int, start: int, end: int) -> None:
        """A segment from its length on. Raises ImageTooComplexError."""
        self._count = within(self._count + 1, MAX_SEGMENTS, "JPEG", "segments")
        if marker in _FRAMES:
            self.frame, self.marker = data[start + 2 : end], marker
        elif marker == _DQT:
            self._tables = within(self._tables + end - start, MAX_TABLES, "JPEG", "bytes of quantization tables")
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", start + 2):
            self._exif = within(self._exif + 1, MAX_EXIF_SEGMENTS, "JPEG", "Exif segments")
        about_pixels = not (0xE0 <= marker <= 0xEF or marker == _COMMENT)
        if about_pixels or any(marker == kind and data.startswith(name, start + 2) for kind, name in _KEPT):
            self.kept.append((start - 2, end))


def read(data: bytes) -> Header:
    """What a JPEG says of itself. Raises ImageError."""
    segments = _Segments()
    scan = _first_scan(data, segments)
    size, components = _frame(segments)
    several = segments.marker in _PROGRESSIVE or data[scan + 4] < components
    stop = len(data)
    if several:
        # Coded data has no marker but its own in it: this is the end, and what lies behind is never looked at.
        end = _end_of_scans(data, scan)
        ends = end is not None
        stop = len(data) if end is None else end
        if not ends and not _complete(data, scan, components):
            raise truncated()
    else:
        ends = data.rfind(b"\xff\xd9", scan) >= 0
    if not ends:  # nor any half of it
        stop = len(data.rstrip(b"\xff"))
    head = b"\xff\xd8" + b"".join(data[start:end] for start, end in segments.kept)
    return Header(
        "JPEG",
        size,
        data if len(head) == scan and stop == len(data) else head + data[scan:stop],
        size.pixels,
        (BYTES_PER_PIXEL if ends else _BYTES_PER_PIXEL_COMPARED) * size.pixels,
        scalable=segments.marker not in _LOSSLESS,
        kept_whole=several,
        in_one_piece=segments.marker in _ARITHMETIC,
        ends=ends,
    )


def _first_scan(data: bytes, segments: _Segments) -> int:
    """Where the marker of the first scan begins."""
    at, junk = 2, 0
    while True:
        marker_at = data.find(b"\xff", at, at + MAX_JUNK + 1)
        found = _NOT_FF.search(data, max(marker_at, 0), at + MAX_JUNK + 2)
        if marker_at < 0 or found is None:
            if at + MAX_JUNK < len(data):
                within(MAX_JUNK + 1, MAX_JUNK, "JPEG", "bytes of padding")
            raise truncated()
        marker, start = data[found.start()], found.end()
        junk = within(junk + start - at - 2, MAX_JUNK, "JPEG", "bytes of padding")
        if marker == _SOS:
            return start - 2
        at = start
        if marker in _BARE or not marker:
            junk = within(junk + 2, MAX_JUNK, "JPEG", "bytes of padding")
        elif marker < 0xC0:
            raise damaged("JPEG")
        else:
            at = start + max(int.from_bytes(data[start : start + 2], "big"), 2)
            if at > len(data):
                raise truncated()
            segments.add(data, marker, start, at)


def _frame(segments: _Segments) -> tuple[Size, int]:
    """The image's size and its number of components."""
    if not segments.frame:
        raise damaged("JPEG")
    precision, height, width, components = unpack_from(">BHHB", segments.frame)
    if segments.marker not in _SEQUENTIAL | _PROGRESSIVE | _LOSSLESS:
        raise unsupported("JPEG", "hierarchical, or lossless with arithmetic coding")
    if precision != 8:
        raise unsupported("JPEG", f"{precision} bits a level; 8 are read")
    if components not in (1, 3, 4):
        raise unsupported("JPEG", f"{components} components; 1, 3 and 4 are read")
    if not height:
        raise unsupported("JPEG", "its height stands behind the pixels")
    return Size(width, height), components


def _end_of_scans(data: bytes, first: int) -> int | None:
    """Where the end mark ends, None without one; the scans from `first` on are counted. Raises ImageTooComplexError."""
    count = 0
    for start in range(first, len(data), _PIECE):
        marks, kinds = _pairs(data, start)
        ends = np.flatnonzero(marks & (kinds == _EOI))
        if len(ends):
            marks = marks[: ends[0]]
        count += int(np.count_nonzero(marks & (kinds[: len(marks)] == _SOS)))
        within(count, MAX_SCANS, "JPEG", "scans")
        if len(ends):
            return start + int(ends[0]) + 2
    return None


def _pairs(data: bytes, start: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Of a piece of `data`: which bytes are 0xFF, and the byte behind each."""
    piece = np.frombuffer(data, np.uint8, min(_PIECE + 1, len(data) - start), start)
    return piece[:-1] == 0xFF, piece[1:]


def _complete(data: bytes, first: int, components: int) -> bool:
    """Whether the scans bring every coefficient of every component down to its last bit."""
    missing: dict[int, list[int]] = {}
    at = first
    while at >= 0:
        named = 2 * data[at + 4]
        low, high, approximation = unpack_from("BBB", data, at + 5 + named)
        for component in data[at + 5 : at + 5 + named : 2]:
            bits = missing.setdefault(component, [15] * 64)
            bits[low : high + 1] = [approximation & 15] * len(bits[low : high + 1])
        at = data.find(b"\xff\xda", at + 2)
    return len(missing) == components and not any(map(any, missing.values()))
