"""multipart/form-data to the bytes of its image parts, every cap counted while the chunks come in.

aiohttp's own form reading is not used: it answers malformed bodies with 500 and has no limit on parts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable

import multipart

from clipsrv.server.wire.envelope import (
    BodyTooLargeError,
    DuplicateFieldError,
    EmptyBodyError,
    MalformedMultipartError,
    MissingImageError,
    TooManyImagesError,
    TooManyPartsError,
    UnexpectedFieldError,
    UnsupportedPartEncodingError,
)

#: Parts a form may have beside its images before it is refused, and bytes after its end.
_SPARE_PARTS, _EPILOGUE = 8, 65_536
_LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MALFORMED = "The body is not well-formed multipart/form-data: check the boundary, and that it was sent whole."


async def read_form(content_type: str, chunks: AsyncIterator[bytes], field: str, limit: int) -> list[bytes]:
    """The bodies of the parts named `field`, at most `limit`, in the order sent; no other part may be there.

    Raises InvalidRequestError of the kind that fits, and whatever `chunks` raises.
    """
    boundary = multipart.parse_options_header(content_type)[1].get("boundary", "")
    form, parser = _Form(field, limit, boundary), _parser(boundary, limit + _SPARE_PARTS)
    try:
        with parser:
            async for chunk in chunks:
                form.feed(parser, chunk)
    except multipart.ParserLimitReached as error:
        if "header" in str(error).lower():
            raise MalformedMultipartError("A part of the form has too many or too long headers.") from None
        raise TooManyPartsError(
            f"The form has too many parts; at most {limit} images are accepted.", limit=limit + _SPARE_PARTS
        ) from None
    except (multipart.MultipartError, ValueError, LookupError, AssertionError):
        if form.empty:
            raise EmptyBodyError(f"The body is empty; send the image in the form field {field!r}.") from None
        raise MalformedMultipartError(_MALFORMED) from None
    return form.images()


def too_many(field: str, limit: int) -> DuplicateFieldError | TooManyImagesError:
    """The error for more than `limit` images in `field`."""
    if limit == 1:
        return DuplicateFieldError(f"{field!r} was sent more than once; send several images to /embed/batch.")
    return TooManyImagesError(f"The request has more than {limit:,} images.", limit=limit)


def names(received: Iterable[str]) -> str:
    """Names a caller sent, printable and cut short."""
    received = list(received)
    shown = [repr(name[:40].encode("ascii", "backslashreplace").decode()) for name in received[:5]]
    return ", ".join(shown) + (", ..." if len(received) > 5 else "") if shown else "none"


class _Form:
    def __init__(self, field: str, limit: int, boundary: str) -> None:
        self.empty = True
        self._field, self._limit = field, limit
        self._opening = b"--" + boundary.encode("utf-8", "surrogateescape")
        self._start: bytes | None = b""  # what has come, until it is enough to see the opening
        self._others: dict[str, None] = {}
        self._bodies: list[list[bytes]] = []
        self._current: list[bytes] = []
        self._epilogue: int | None = None

    def feed(self, parser: multipart.PushMultipartParser, chunk: bytes) -> None:
        self.empty = False
        if self._start is not None:
            self._start += chunk
            if len(self._start) < len(self._opening) + 2:
                return
            # A damaged first boundary would count as a preamble, and its part be lost without a word.
            if not self._start.removeprefix(b"\r\n").startswith(self._opening):
                raise MalformedMultipartError(_MALFORMED)
            chunk, self._start = self._start, None
        if self._epilogue is None:
            try:
                for event in parser.parse(chunk):
                    if isinstance(event, multipart.MultipartSegment):
                        self._begin_part(event)
                    elif event is not None:
                        self._current.append(bytes(event))
                return
            except multipart.StrictParserError:
                parser.close()  # raises unless the form has ended: then what follows is no fault of it
                self._epilogue = 0
        self._epilogue += len(chunk)
        if self._epilogue > _EPILOGUE:
            raise BodyTooLargeError(f"More than {_EPILOGUE:,} bytes follow the end of the form.", limit=_EPILOGUE)

    def images(self) -> list[bytes]:
        if self._others:
            raise UnexpectedFieldError(f"Expected the form field {self._field!r}; received {names(self._others)}.")
        if not self._bodies:
            raise MissingImageError(f"The form has no part; send the image in the form field {self._field!r}.")
        images = []
        for body in self._bodies:
            images.append(b"".join(body))
            body.clear()  # so that the form is in memory once, and not twice
        return images

    def _begin_part(self, part: multipart.MultipartSegment) -> None:
        if any(_CONTROL.search(value) for _, value in part.headerlist):
            raise MalformedMultipartError("A part has a control character in its headers.")
        if part.header("Content-Encoding"):
            raise UnsupportedPartEncodingError("A part has a Content-Encoding; send the image as it is.")
        if (part.header("Content-Transfer-Encoding") or "binary").lower() not in {"7bit", "8bit", "binary"}:
            raise UnsupportedPartEncodingError("A part has a Content-Transfer-Encoding; send the image as binary.")
        self._current = []
        if part.name != self._field:
            self._others[str(part.name)] = None
            return
        self._bodies.append(self._current)
        if len(self._bodies) > self._limit:
            raise too_many(self._field, self._limit)


def _parser(boundary: str, parts: int) -> multipart.PushMultipartParser:
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise MalformedMultipartError(f"The Content-Type needs a boundary of 1 to {_LONGEST_BOUNDARY} characters.")
    try:
        return multipart.PushMultipartParser(boundary, max_segment_count=parts, strict=True)
    except (multipart.MultipartError, ValueError):
        raise MalformedMultipartError(_MALFORMED) from None
