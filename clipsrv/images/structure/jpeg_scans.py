"""JPEG's scans (ITU-T T.81, annexes B and G): what they cost, where they end, and whether they say all of an image."""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import unpack_from

from clipsrv.images.structure.header import Count, Size, damaged, truncated, within

#: Encoders write some ten. Each takes time for all pixels, however few bytes it has.
MAX_SCANS = 100
#: Coefficients that scans go over in a file, each time anew, or for each pixel if the image is larger. Encoders go over
#: some ten for each pixel. One takes 0.6 ns beside its bits; with arithmetic coding 3 ns, and hardly any bits.
MAX_VISITS, MAX_VISITS_PER_PIXEL, ARITHMETIC_VISITS = 2_000_000_000, 40, 2

EOI, SOS = 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
#: Bytes of coded data searched together, while nothing else runs.
_PIECE = 1 << 18
#: A block of 8 x 8 coefficients takes the time of some more, however few of them a scan goes over.
_IN_BLOCK, _BESIDE = 64, 8


class Scans:
    """The scans of a file from the first on, whose marker stands at `first`. `add` is called for each segment between
    them, with its marker and where it begins and ends. Raises ImageError."""

    def __init__(self, data: bytes, first: int, size: Size, add: Callable[[int, int, int], None]) -> None:
        self._data, self._add = data, add
        #: Coefficients gone over, each counted anew with each scan.
        self.visits = 0
        #: The bits that no scan has brought yet, of each coefficient of each component.
        self._missing: dict[int, list[int]] = {}
        self._pixels = size.pixels
        #: Where the end mark ends, or None without one.
        self.end: int | None = None
        count, at = Count(MAX_SCANS, "JPEG", "scans"), first
        try:
            while at >= 0:
                count.add()
                self._read(at)
                at = self._next(at + 2 + self._length(at))
        except IndexError:
            raise truncated() from None

    def complete(self, components: int) -> bool:
        """Whether every coefficient of every component has come down to its last bit."""
        return len(self._missing) == components and not any(map(any, self._missing.values()))

    def _read(self, at: int) -> None:
        """Looks at the head of a scan."""
        named = self._data[at + 4]
        if at + 8 + 2 * named > len(self._data):
            raise IndexError("outside the file")
        low, high, approximation = unpack_from("BBB", self._data, at + 5 + 2 * named)
        if high >= _IN_BLOCK or low > high:
            raise damaged("JPEG")
        self.visits += named * self._pixels * (high - low + 1 + _BESIDE) // _IN_BLOCK
        for component in self._data[at + 5 : at + 5 + 2 * named : 2]:
            bits = self._missing.setdefault(component, [15] * _IN_BLOCK)
            bits[low : high + 1] = [approximation & 15] * (high - low + 1)

    def _next(self, at: int) -> int:
        """Where the next scan behind `at` begins, and -1 behind the last."""
        while True:
            at = self._marker(at)
            if at < 0:
                return -1
            marker = self._data[at + 1]
            if marker == EOI:
                self.end = at + 2
                return -1
            if marker == SOS:
                return at
            if marker < 0xC0:
                raise damaged("JPEG")
            start, at = at + 2, at + 2 + self._length(at)
            if at > len(self._data):
                raise truncated()
            self._add(marker, start, at)

    def _marker(self, start: int) -> int:
        """The next marker that is none of coded data's own, or -1."""
        for piece in range(start, len(self._data), _PIECE):
            found = _MARKER.search(self._data, piece, piece + _PIECE + 1)
            if found:
                return found.start()
        return -1

    def _length(self, at: int) -> int:
        """The length of the segment whose marker stands at `at`, which counts itself."""
        return max(self._data[at + 2] << 8 | self._data[at + 3], 2)


def judge(visits: int, pixels: int, name: str = "JPEG") -> None:
    """Raises ImageTooComplexError if going over so many coefficients takes too long for an image of so many pixels."""
    limit = max(MAX_VISITS, MAX_VISITS_PER_PIXEL * pixels)
    within(visits, limit, name, "coefficients in its scans, each counted as often as it is gone over")
