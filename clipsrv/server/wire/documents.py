"""JSON bodies to whatever a protocol reads out of them: bounded before they are parsed, and one large one at a time.

The parser holds Python's lock for as long as it parses, in whatever thread, and makes an object of some hundred bytes
from two bytes of text. So both the bytes and the values of a document are counted first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
from aiohttp import web

from clipsrv.server.wire.bodies import Blob, BodyReader, ByteLimit
from clipsrv.server.wire.envelope import BodyTooLargeError, EmptyBodyError, InvalidJsonError
from clipsrv.serving.admission import Lease
from clipsrv.serving.pool import FairPool

Document = dict[str, Any]
Result = TypeVar("Result")

#: JSON of more bytes is read in the thread.
_LARGE = 65_536
#: Bytes looked at in one go, since to look at them holds the lock as well.
_PIECE = 2**20
#: A character of text beyond ASCII may make every character of its string take four bytes.
_WIDEST = 4


@dataclass(frozen=True)
class DocumentLimits:
    """`max_bytes` of a document in ASCII; a quarter of that with text beyond it, whose characters may take four bytes.
    `max_values` are its commas, colons and opening brackets, of which there are as many as values and keys or more.
    """

    max_bytes: int
    max_values: int


class DocumentReader:
    """Reads bodies that are a JSON object, and translates them in the same place: large ones in `thread`, by turns."""

    def __init__(self, bodies: BodyReader, limits: DocumentLimits, thread: FairPool) -> None:
        self._bodies, self._limits, self._thread = bodies, limits, thread

    async def read(self, request: web.Request, lease: Lease, translate: Callable[[Document], Result]) -> Result:
        """What `translate`, a pure function, makes of the document.

        Raises EmptyBodyError, BodyTooLargeError, InvalidJsonError, what `translate` raises, ShuttingDownError, and as
        BodyReader.chunks.
        """
        limits, most = self._limits, ByteLimit(self._limits.max_bytes, "--max-json-bytes")
        body = await self._bodies.read(request, lease, most)
        if len(body) <= _LARGE:
            return translate(parse(body, limits))
        return await self._thread.run(lambda: translate(parse(body, limits)), lease.holder)

    def stop(self) -> None:
        """Whatever waits to be parsed fails with ShuttingDownError."""
        self._thread.stop()


def parse(body: Blob, limits: DocumentLimits) -> Document:
    """The JSON object that `body` is. Raises EmptyBodyError, BodyTooLargeError, InvalidJsonError."""
    if not body:
        raise EmptyBodyError("The body is empty; send JSON.")
    if _WIDEST * len(body) > limits.max_bytes and not _is_plain(body):
        raise BodyTooLargeError(
            f"JSON with text beyond ASCII may have {limits.max_bytes // _WIDEST:,} bytes (a quarter of "
            "--max-json-bytes). Send less at once.",
            limit=limits.max_bytes // _WIDEST,
        )
    if len(body) > limits.max_values and count_values(body) > limits.max_values:
        raise BodyTooLargeError(
            f"The JSON has more than {limits.max_values:,} commas, colons and opening brackets. Send less at once.",
            limit=limits.max_values,
        )
    try:
        document = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError):  # which holds the whole text
        document = None
    if document is None:
        raise InvalidJsonError("The body is not valid JSON in UTF-8.")
    if not isinstance(document, dict):
        raise InvalidJsonError("The body must be a JSON object.")
    return document


def count_values(body: Blob) -> int:
    """At least as many as there are values and keys in `body`, less one."""
    characters, found = np.frombuffer(body, np.uint8), 0
    for at in range(0, len(characters), _PIECE):
        piece = characters[at : at + _PIECE]
        found += sum(int(np.count_nonzero(piece == ord(sign))) for sign in ",:[{")
    return found


def _is_plain(body: Blob) -> bool:
    """Whether every string in `body` is sure to be ASCII."""
    pieces = (bytes(body[at : at + _PIECE + 1]) for at in range(0, len(body), _PIECE))
    return all(piece.isascii() and b"\\u" not in piece for piece in pieces)
