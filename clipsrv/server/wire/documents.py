"""JSON bodies to whatever a protocol reads out of them: bounded before they are parsed, large ones one at a time.

The parser holds Python's lock for as long as it parses, in whatever thread, and makes an object of a hundred bytes out
of two bytes of text. So long strings are cut out first, and never become text as a whole; what is left must be little.
"""

from __future__ import annotations

import gc
import re
import secrets
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
from aiohttp import web

from clipsrv.errors import ClipsrvError
from clipsrv.server.wire.bodies import BodyReader, ByteLimit
from clipsrv.server.wire.envelope import BodyTooLargeError, EmptyBodyError, InvalidJsonError
from clipsrv.server.wire.pieces import Whole, blob_of
from clipsrv.serving.admission import Lease
from clipsrv.serving.pool import FairPool
from clipsrv.settings import JSON_BYTES_PER_ITEM, JSON_SIGNS_PER_ITEM

#: Strings in it are str, or LongString.
Document = dict[str, Any]
Result = TypeVar("Result")

#: JSON of more bytes is read in the thread, and bounded.
_LARGE = 65_536
#: A string of more bytes is cut out.
_LONG = 64
#: Bytes looked at, or decoded, in one go: that holds the lock as well.
_PIECE = 2**18
#: Bytes by which a string is told from others, and escapes in them of what may stand in a URI.
_HEAD, _ESCAPED_ASCII = 512, re.compile(rb"\\(?:(/)|u00([2-7][0-9a-fA-F]))")
#: The longest escape, of a pair of surrogates.
_LONGEST_ESCAPE = 12


@dataclass(frozen=True)
class DocumentLimits:
    """`max_bytes` of a document. For each of its `items` it may have JSON_SIGNS_PER_ITEM quotes, and beside its long
    strings as many other signs (commas, colons, opening brackets) and JSON_BYTES_PER_ITEM."""

    max_bytes: int
    items: int


class LongString:
    """A string of a document as it stands in the body, escapes and all."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw

    def __len__(self) -> int:
        """Bytes, at most six for each character."""
        return len(self._raw)

    def head(self) -> str:
        """Its first characters, by which it can be told from others: enough of them where they are ASCII, and with
        anything that is not."""
        begun = _ESCAPED_ASCII.sub(lambda match: match[1] or bytes.fromhex(match[2].decode()), bytes(self._raw[:_HEAD]))
        return begun.decode("ascii", "replace")

    def text(self) -> str:
        """All of it. Raises InvalidJsonError."""
        return _unescaped(self._raw)

    def pieces(self) -> Iterator[str]:
        """All of it if it is ASCII, a piece at a time. Raises InvalidJsonError, for other characters too."""
        at = 0
        while at < len(self._raw):
            end = at + _PIECE
            if end < len(self._raw):  # not within an escape
                begun = bytes(self._raw[end - _LONGEST_ESCAPE : end]).find(b"\\")
                end += begun - _LONGEST_ESCAPE if begun >= 0 else 0
            yield _unescaped(self._raw[at:end])
            at = end


class DocumentReader:
    """Reads bodies that are a JSON object, and translates them in the same place: large ones in `thread`, by turns."""

    def __init__(self, bodies: BodyReader, limits: DocumentLimits, thread: FairPool) -> None:
        self._bodies, self._limits, self._thread = bodies, limits, thread

    async def read(self, request: web.Request, lease: Lease, translate: Callable[[Document], Result]) -> Result:
        """What `translate`, a pure function, makes of the document.

        Raises EmptyBodyError, BodyTooLargeError, InvalidJsonError, what `translate` raises, ShuttingDownError, and as
        BodyReader.chunks.
        """
        most = ByteLimit(self._limits.max_bytes, "--max-json-bytes")
        return await self.translated(await self._bodies.read(request, lease, most), translate, lease.holder)

    async def translated(self, body: Whole, translate: Callable[[Document], Result], caller: Hashable) -> Result:
        """What `translate` makes of the document that `body` is. Raises as `read`."""
        if len(body) <= _LARGE:
            return translate(document_of(body))
        limits = self._limits
        return await self._thread.run(lambda: _translated(body, limits, translate), caller)


def _translated(body: Whole, limits: DocumentLimits, translate: Callable[[Document], Result]) -> Result:
    refused: list[ClipsrvError] = []
    with _collecting_nothing():
        try:
            return translate(parse(body, limits))
        except ClipsrvError as error:
            refused.append(error.with_traceback(None))  # which holds the document
    raise refused.pop()


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Python looks for no cycles: to look through a large document takes tens of milliseconds, of every thread."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def parse(body: Whole, limits: DocumentLimits) -> Document:
    """The JSON object that a large `body` is. Raises BodyTooLargeError, InvalidJsonError."""
    items, mark = limits.items, secrets.token_hex(8)
    _check("quotes", _count(body, '"'), JSON_SIGNS_PER_ITEM * items)
    kept, long_strings = _cut(body, mark)
    _check("bytes beside long strings", sum(map(len, kept)), JSON_BYTES_PER_ITEM * items)
    skeleton = b"".join(kept)
    _check("commas, colons and brackets beside long strings", _count(skeleton, ",:[{"), JSON_SIGNS_PER_ITEM * items)
    document = document_of(skeleton)
    if long_strings:
        _put_back(document, mark, long_strings)
    return document


def _check(what: str, count: int, most: int) -> None:
    if count > most:
        raise BodyTooLargeError(f"The JSON has {count:,} {what}, more than {most:,}. Send less at once.", limit=most)


def _count(body: Whole, signs: str) -> int:
    characters, found = np.frombuffer(body, np.uint8), 0
    for at in range(0, len(characters), _PIECE):
        piece = characters[at : at + _PIECE]
        found += sum(int(np.count_nonzero(piece == ord(sign))) for sign in signs)
    return found


def _cut(body: Whole, mark: str) -> tuple[list[memoryview | bytes], list[LongString]]:
    """The document without its long strings, in pieces: in the place of each stands the mark and its number."""
    view, kept, found, at, look = memoryview(body), list[memoryview | bytes](), list[LongString](), 0, 0
    while (start := _quote(body, look)) >= 0:
        end = _closing(body, start + 1)
        if end < 0:
            raise invalid_json()
        look = end + 1
        if end - start > _LONG and body[look : look + 1] != b":":  # a key is to be named
            kept += (view[at:start], f'"{mark}{len(found)}"'.encode())
            found.append(LongString(view[start + 1 : end]))
            at = look
    return [*kept, view[at:]], found


def _quote(body: Whole, start: int) -> int:
    """Where the next quote stands; -1 for nowhere."""
    for at in range(start, len(body), _PIECE):
        found = body.find(b'"', at, at + _PIECE)
        if found >= 0:
            return found
    return -1


def _closing(body: Whole, start: int) -> int:
    """Where the quote stands that ends the string that begins at `start`; -1 for nowhere."""
    end = _quote(body, start)
    while end >= 0 and _backslashes(body, start, end) % 2:
        end = _quote(body, end + 1)
    return end


def _backslashes(body: Whole, start: int, end: int) -> int:
    """How many stand directly before `end`, not counting those before `start`."""
    found, width = 0, 16
    while True:
        window = body[max(start, end - found - width) : end - found]
        there = len(window) - len(window.rstrip(b"\\"))
        found, width = found + there, _PIECE
        if there < len(window) or not window:
            return found


def _put_back(document: Document, mark: str, long_strings: list[LongString]) -> None:
    nodes: list[Any] = [document]
    while nodes:
        node = nodes.pop()
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str) and value.startswith(mark):
                node[key] = long_strings[int(value[len(mark) :])]
            elif isinstance(value, dict | list):
                nodes.append(value)


def document_of(body: Whole) -> Document:
    """The JSON object that `body` is, however many values it has. Raises EmptyBodyError, InvalidJsonError."""
    if not body:
        raise EmptyBodyError("The body is empty; send JSON.")
    document = _loaded(body)
    if not isinstance(document, dict):
        raise InvalidJsonError("The body must be a JSON object.")
    return document


def _unescaped(raw: memoryview) -> str:
    return str(_loaded(b'"%s"' % raw))


def _loaded(body: Whole) -> Any:
    try:
        return orjson.loads(blob_of(body))
    except (orjson.JSONDecodeError, RecursionError):  # which holds the whole text
        pass
    raise invalid_json()


def invalid_json() -> InvalidJsonError:
    """The error for what is no JSON."""
    return InvalidJsonError("The body is not valid JSON in UTF-8.")
