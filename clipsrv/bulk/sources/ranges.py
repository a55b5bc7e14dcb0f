"""A file that is read in parts, wherever it lies, as a file of Python's."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

#: Gives the bytes of a file from a place on, so many; fewer where it ends.
Part = Callable[[int, int], bytes]


class Ranges(io.RawIOBase):
    """Reads by `part`. Of a file whose `size` is not known the end is not sought."""

    def __init__(self, part: Part, size: int | None = None) -> None:
        self._part, self._size, self._place = part, size, 0

    @classmethod
    def buffered(cls, part: Part, ahead: int, size: int | None = None) -> io.BufferedReader[Ranges]:
        """The same with `ahead` bytes read at once."""
        return io.BufferedReader(cls(part, size), ahead)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if self._size is None:
                raise io.UnsupportedOperation("how long it is nobody knows")
            offset += self._size
        self._place = offset + (self._place if whence == io.SEEK_CUR else 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        found = self._part(self._place, len(buffer))
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)
