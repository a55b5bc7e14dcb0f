"""Bits in order, as codecs' headers are written."""

from __future__ import annotations


class Bits:
    """Reads `data` from its first bit on. Reading past the end raises IndexError."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise IndexError("no more bits")
        return self._value >> self._left & (1 << count) - 1

    def flag(self) -> bool:
        return self.take(1) == 1

    def exp_golomb(self) -> int:
        """An unsigned Exp-Golomb code (ue(v) of H.265, uvlc() of AV1), of at most 32 leading zeros."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros > 32:
                raise IndexError("a code without end")
        return (1 << zeros) - 1 + self.take(zeros)
