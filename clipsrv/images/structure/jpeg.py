"""JPEG (ITU-T T.81, annex B): its segments up to the first scan, and what the scans say.

Segments that say nothing of pixels are left out of what the decoder gets.
"""

from __future__ import annotations

import re
from functools import partial
from struct import unpack_from

from clipsrv.images.structure.header import BYTES_PER_PIXEL, Header, Size, damaged, truncated, unsupported, within
from clipsrv.images.structure.jpeg_scans import ARITHMETIC_VISITS, SOS, Scans, judge

#: Before the first scan. A colour profile takes up to 255 segments, a depth map some hundreds.
MAX_SEGMENTS, MAX_EXIF_SEGMENTS = 2000, 64
#: Bytes there: of no segment, which is padding or junk; and of quantization tables, of which four take 260.
MAX_JUNK = MAX_TABLES = 65_536

_DQT, _COMMENT = 0xDB, 0xFE
#: Frames that are read, by how they are coded; lossless ones too, which libjpeg cannot decode smaller.
_SEQUENTIAL, _PROGRESSIVE, _LOSSLESS = {0xC0, 0xC1, 0xC9}, {0xC2, 0xCA}, {0xC3}
_ARITHMETIC = {0xC9, 0xCA}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
#: Markers without a segment, as Pillow has it.
_BARE = {0xC8, *range(0xD0, SOS), *range(0xF0, 0xFE)}
#: Application segments that decoding looks at: JFIF and Adobe for the colours, Exif and XMP for what is up.
_KEPT = ((0xE0, b""), (0xE1, b"Exif\0\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xEE, b"Adobe"))
_NOT_FF = re.compile(rb"[^\xff]")
#: What it takes to compare an image with itself, and how often it is decoded then.
_BYTES_PER_PIXEL_COMPARED, TIMES_COMPARED = BYTES_PER_PIXEL + 4, 3


class _Segments:
    """What stands before the first scan: the last frame header and its marker, and what is kept of the file."""

    def __init__(self) -> None:
        self.frame, self.marker = b"", 0
        self.kept: list[tuple[int, int]] = []
        self._count = self._exif = self._tables = 0

    def add(self, data: bytes, marker: int, start: int, end: int) -> None:
        """A segment from its length on. Raises ImageTooComplexError."""
        self.count(data, marker, start, end)
        if marker in _FRAMES:
            self.frame, self.marker = data[start + 2 : end], marker
        about_pixels = not (0xE0 <= marker <= 0xEF or marker == _COMMENT)
        if about_pixels or any(marker == kind and data.startswith(name, start + 2) for kind, name in _KEPT):
            self.kept.append((start - 2, end))

    def count(self, data: bytes, marker: int, start: int, end: int) -> None:
        """The same of one that is not looked at."""
        self._count = within(self._count + 1, MAX_SEGMENTS, "JPEG", "segments")
        if marker == _DQT:
            self._tables = within(self._tables + end - start, MAX_TABLES, "JPEG", "bytes of quantization tables")
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", start + 2):
            self._exif = within(self._exif + 1, MAX_EXIF_SEGMENTS, "JPEG", "Exif segments")


def read(data: bytes) -> Header:
    """What a JPEG says of itself. Raises ImageError."""
    segments = _Segments()
    scan = _first_scan(data, segments)
    size, components = _frame(segments)
    arithmetic, several = segments.marker in _ARITHMETIC, _has_several_scans(segments, data, scan, components)
    if several:
        scans = Scans(data, scan, size, partial(segments.count, data))
        ends = scans.end is not None
        judge(scans.visits * (1 if ends else TIMES_COMPARED) * (ARITHMETIC_VISITS if arithmetic else 1), size.pixels)
        if not ends and not scans.complete(components):
            raise truncated()
        stop = scans.end or len(data)  # what lies behind is never looked at
    else:
        ends, stop = data.rfind(b"\xff\xd9", scan) >= 0, len(data)
    if not ends:
        if arithmetic:
            raise truncated()  # its data ends where the mark stands
        stop = len(data.rstrip(b"\xff"))  # nor any half of the mark
    head = b"\xff\xd8" + b"".join(data[start:end] for start, end in segments.kept)
    return Header(
        "JPEG",
        size,
        data if len(head) == scan and stop == len(data) else head + data[scan:stop],
        size.pixels,
        (BYTES_PER_PIXEL if ends else _BYTES_PER_PIXEL_COMPARED) * size.pixels,
        scalable=segments.marker not in _LOSSLESS,
        kept_whole=several,
        ends=ends,
    )


def visits(data: bytes) -> int:
    """Coefficients that the scans of a JPEG within another file go over; 0 if it has one scan. Raises ImageError."""
    segments = _Segments()
    scan = _first_scan(data, segments)
    size, components = _frame(segments)
    if not _has_several_scans(segments, data, scan, components):
        return 0
    found = Scans(data, scan, size, partial(segments.count, data)).visits
    return found * ARITHMETIC_VISITS if segments.marker in _ARITHMETIC else found


def _has_several_scans(segments: _Segments, data: bytes, scan: int, components: int) -> bool:
    return segments.marker in _PROGRESSIVE or data[scan + 4] < components


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
        if marker == SOS:
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
