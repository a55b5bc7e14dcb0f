"""Takes the padding off the boundary lines of a form: RFC 2046 (5.1.1) allows blanks there, our parser knows none."""

from __future__ import annotations

#: Blanks after a boundary that are taken for padding; with more the line is left as it is, to be refused.
_LONGEST = 256
_BLANKS = b" \t"


class Unpadded:
    """Feed it the chunks of a body; gives the same bytes without padding, holding back what may be part of a boundary.

    What is held back in the end is no boundary line with padding, and was not a whole line.
    """

    def __init__(self, boundary: bytes) -> None:
        self._line = b"\r\n--" + boundary
        self._held = b"\r\n"  # the first boundary needs none before it; the parser takes it with or without

    def feed(self, chunk: bytes) -> bytes:
        line, data, done, at = self._line, self._held + chunk, [], 0
        self._held = b""
        while (found := data.find(line, at)) >= 0:
            end = found + len(line)
            rest = data[end : end + _LONGEST + 2]
            left = rest.lstrip(_BLANKS)
            if len(rest) < _LONGEST + 2 and left in (b"", b"\r"):  # the end of the line is to come
                done.append(data[at:found])
                self._held = data[found:]
                return b"".join(done)
            done.append(data[at:end])
            at = end
            if left.startswith(b"\r\n"):  # of this line, though another might begin so: a part ends when it is there
                done.append(b"\r\n")
                at += len(rest) - len(left) + 2
        cut = self._begun(data, at)
        self._held = data[cut:]
        return b"".join((*done, data[at:cut]))

    def _begun(self, data: bytes, at: int) -> int:
        """Where a boundary line begins that goes on in the next chunk; the end of `data` if none does."""
        start = data.find(b"\r", max(at, len(data) - len(self._line) + 1))
        while start >= 0:
            if self._line.startswith(data[start:]):
                return start
            start = data.find(b"\r", start + 1)
        return len(data)
