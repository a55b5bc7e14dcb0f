"""Bytes that come a piece at a time, however many: to join them in the end, or to move them as they grow, would keep
the loop. Knows nothing of what they are."""

from __future__ import annotations

import mmap
import sys

#: Bytes that are joined in one go.
_ONE_GO = 2**22
#: Whether the system can give a mapping more room without copying what it holds (Linux's mremap).
_REMAPS = sys.platform == "linux"

#: Bytes of an upload, or of a part of it.
Blob = bytes | memoryview
#: Bytes that can be searched.
Whole = bytes | mmap.mmap


class Pieces:
    """Few bytes are kept as they came; many in memory of their own, which grows where it is: the heap moves it."""

    def __init__(self, most: int | None = None) -> None:
        """Of more than `most` bytes the first are kept, with one more that tells."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._large: mmap.mmap | None = None
        self._kept = None if most is None else most + 1

    def __len__(self) -> int:
        return self._size

    def add(self, piece: bytes) -> None:
        """Raises MemoryError."""
        if self._kept is not None:
            piece = piece[: self._kept - self._size]
        before, self._size = self._size, self._size + len(piece)
        if self._size <= _ONE_GO:
            self._pieces.append(piece)
            return
        if self._large is None:
            self._large = _resized(None, max(2 * _ONE_GO, self._size))
            self._large[:before] = b"".join(self._pieces)
            self._pieces.clear()
        elif self._size > len(self._large):
            self._large = _resized(self._large, 2 * self._size)
        self._large[before : self._size] = piece

    def whole(self) -> Whole:
        """All of them, after which none can be added."""
        if self._large is None:
            return b"".join(self._pieces)
        if len(self._large) > self._size:
            self._large = _resized(self._large, self._size)
        return self._large

    def blob(self) -> Blob:
        """As `whole`, for who need not search it."""
        return blob_of(self.whole())


def blob_of(whole: Whole) -> Blob:
    """The same bytes, of which nothing is copied."""
    return whole if isinstance(whole, bytes) else memoryview(whole)


def _resized(held: mmap.mmap | None, size: int) -> mmap.mmap:
    """Memory of `size` bytes that begins with what is `held`. Pages that nothing was written to take none."""
    try:
        if held is not None and _REMAPS:
            held.resize(size)
            return held
        fresh = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError from None
    if held is not None:
        common = min(size, len(held))
        fresh[:common] = held[:common]
    return fresh
