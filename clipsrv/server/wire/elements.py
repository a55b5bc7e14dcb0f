"""The JSON of a stream cut up as it comes: each image of {"model": ..., "images": [...]} by itself, never all of them.

Finds where a value ends and looks at none: an element is to be read as a body that holds it alone.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from typing import NoReturn

from clipsrv.server.wire.documents import document_of, invalid_json
from clipsrv.server.wire.envelope import (
    BodyTooLargeError,
    DuplicateFieldError,
    EmptyBatchError,
    EmptyBodyError,
    InvalidFieldError,
    MissingImageError,
    UnexpectedFieldError,
)
from clipsrv.server.wire.forms import names, too_many_streamed
from clipsrv.server.wire.inputs import model_of
from clipsrv.server.wire.pieces import Pieces
from clipsrv.settings import JSON_SIGNS_PER_ITEM

_IMAGES, _MODEL = "images", "model"
_HEAD, _TAIL = b'{"images":[', b"]}"
#: Bytes that an element has more as a body of its own.
AROUND = len(_HEAD) + len(_TAIL)
_QUOTE = ord('"')
_BLANKS, _SIGN = re.compile(rb"[ \t\r\n]*"), re.compile(rb'["\[\]{},:]')
#: Bytes of a name, and of blanks in a row.
_SHORT, _MOST_BLANKS = 4096, 65_536


class Elements:
    """Of a body of `chunks`: at most `limit` elements, each cut after `most_bytes` and one more."""

    def __init__(
        self, chunks: AsyncGenerator[bytes], limit: int, most_bytes: int, settle: Callable[[int], None]
    ) -> None:
        """Before it waits for another chunk it tells `settle` how many bytes it holds of the element that has begun."""
        #: The model that the document names, as soon as it does.
        self.model: str | None = None
        self._chunks, self._limit, self._most, self._settle = chunks, limit, most_bytes + AROUND, settle
        self._chunk, self._at = b"", 0
        self._begun: Pieces | None = None

    async def read(self) -> AsyncGenerator[Pieces]:
        """Each element as the JSON of a body {"images": [element]}. Raises InvalidRequestError of the kind that fits,
        and what `chunks` raises."""
        keys: list[str] = []
        if not (sign := await self._sign()):
            raise EmptyBodyError("The body is empty; send JSON.")
        if sign != b"{":
            _refuse()
        sign = await self._sign()
        while sign == b'"':
            keys.append(await self._key(keys))
            if keys[-1] == _MODEL:
                value = await self._value(await self._sign(), b'{"model":', b"}", _SHORT)
                self.model = model_of(document_of(value.whole()))
            else:
                async for element in self._elements():
                    yield element
            if (sign := await self._sign()) == b",":
                sign = await self._sign()
                if sign != b'"':
                    _refuse()
        if sign != b"}" or await self._sign():
            _refuse()
        if _IMAGES not in keys:
            raise MissingImageError(f"Expected the field {_IMAGES!r}; received {names(keys)}.")

    async def _key(self, before: list[str]) -> str:
        raw = await self._value(b'"', b'{"key":', b"}", _SHORT)
        key = str(document_of(raw.whole())["key"])
        if await self._sign() != b":":
            _refuse()
        if key not in (_IMAGES, _MODEL):
            raise UnexpectedFieldError(f"Expected {_IMAGES!r}, and {_MODEL!r} at most; received {names([key])}.")
        if key in before:
            raise DuplicateFieldError(f"{key!r} was sent more than once.")
        return key

    async def _elements(self) -> AsyncGenerator[Pieces]:
        if await self._sign() != b"[":
            raise InvalidFieldError(f"{_IMAGES!r} must be a list.")
        sign, count = await self._sign(), 0
        if sign == b"]":
            raise EmptyBatchError(f"The request has no image; send at least one as {_IMAGES!r}.")
        while True:
            if count == self._limit:
                raise too_many_streamed(_IMAGES, self._limit)
            yield await self._value(sign, _HEAD, _TAIL, self._most)
            count += 1
            if (sign := await self._sign()) == b"]":
                return
            if sign != b",":
                _refuse()
            sign = await self._sign()

    async def _sign(self) -> bytes:
        """The next byte that is no blank, which is taken; b"" for none."""
        skipped = 0
        while True:
            start = self._at
            self._at = _end(_BLANKS, self._chunk, start)
            skipped += self._at - start
            if skipped > _MOST_BLANKS:
                _refuse()
            if self._at < len(self._chunk):
                self._at += 1
                return self._chunk[self._at - 1 : self._at]
            if not await self._more():
                return b""

    async def _value(self, first: bytes, head: bytes, tail: bytes, most: int) -> Pieces:
        """The value that begins with `first`, between `head` and `tail`."""
        if first not in (b'"', b"{", b"["):
            if first in (b"", b",", b"]", b"}", b":"):
                _refuse()
            raise InvalidFieldError("The document has a value that is no string, where one belongs.")
        value = self._begun = Pieces(most)
        value.add(head + first)
        depth, quoted, signs, odd = int(first != b'"'), first == b'"', 0, 0
        while depth or quoted:
            start = self._at
            if start == len(self._chunk):
                if not await self._more():
                    _refuse()
                continue
            if quoted:
                self._at, odd, quoted = _quote(self._chunk, start, odd)
                signs += self._chunk[self._at - 1] == _QUOTE
            elif sign := _SIGN.search(self._chunk, start):
                self._at, signs = sign.end(), signs + 1
                quoted = sign[0] == b'"'
                depth += (sign[0] in b"[{") - (sign[0] in b"]}")
            else:
                self._at = len(self._chunk)
            if signs > JSON_SIGNS_PER_ITEM:
                message = f"An image has more than {JSON_SIGNS_PER_ITEM} quotes and signs of JSON around it."
                raise BodyTooLargeError(message, limit=JSON_SIGNS_PER_ITEM)
            value.add(self._chunk[start : self._at])
        self._begun = None
        value.add(tail)
        return value

    async def _more(self) -> bool:
        self._settle(len(self._begun) if self._begun is not None else 0)
        self._chunk, self._at = await anext(self._chunks, b""), 0
        return bool(self._chunk)


def _end(blanks: re.Pattern[bytes], chunk: bytes, at: int) -> int:
    match = blanks.match(chunk, at)
    return match.end() if match else at


def _quote(chunk: bytes, at: int, odd: int) -> tuple[int, int, bool]:
    """In a string that goes on at `at`, after `odd` backslashes: where it goes on after the next quote, or the chunk;
    whether the backslashes before that place are of an odd number; and whether the string goes on."""
    end = chunk.find(b'"', at)
    stretch = chunk[at : end if end >= 0 else len(chunk)]
    backslashes = len(stretch) - len(stretch.rstrip(b"\\"))
    if backslashes == len(stretch):
        backslashes += odd
    if end < 0:
        return len(chunk), backslashes % 2, True
    return end + 1, 0, backslashes % 2 == 1


def _refuse() -> NoReturn:
    raise invalid_json()
