"""multipart/form-data to the bytes of its parts, every cap counted while the chunks come in.

aiohttp's own form reading is not used: it answers malformed bodies with 500 and has no limit on parts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing

import multipart

from clipsrv.server.wire.bodies import Blob, Pieces
from clipsrv.server.wire.boundaries import Unpadded
from clipsrv.server.wire.envelope import (
    BodyTooLargeError,
    DuplicateFieldError,
    EmptyBodyError,
    InvalidRequestError,
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
#: Reads any bytes: a file name comes in whatever code page its machine has (cp932, 1252), and is never used.
_CHARSET = "latin-1"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MALFORMED = "The body is not well-formed multipart/form-data: check the boundary, and that it was sent whole."

#: The error for more parts of a name than its limit.
TooMany = Callable[[str, int], InvalidRequestError]


def too_many(field: str, limit: int) -> InvalidRequestError:
    """The error for more than `limit` images in `field`."""
    if limit == 1:
        return DuplicateFieldError(f"{field!r} was sent more than once; send several images to /embed/batch.")
    return TooManyImagesError(f"The request has more than {limit:,} images (--max-images).", limit=limit)


async def read_form(content_type: str, chunks: AsyncGenerator[bytes], field: str, limit: int) -> list[Blob]:
    """The bodies of the parts named `field`, at least one and at most `limit`, in the order sent; no other part may be
    there. Raises as `read_fields`."""
    return (await read_fields(content_type, chunks, {field: limit}))[field]


async def read_fields(
    content_type: str, chunks: AsyncGenerator[bytes], limits: Mapping[str, int], too_many: TooMany = too_many
) -> dict[str, list[Blob]]:
    """The bodies of the parts by their names, in the order sent: of each name at most its limit, and of no other name.
    The first name is that of the images, of which there must be one.

    Raises InvalidRequestError of the kind that fits, `too_many` of a name and its limit, and whatever `chunks` raises.
    """
    field, limit = next(iter(limits)), sum(limits.values())
    parser = _parser(content_type, limit + _SPARE_PARTS)
    form = _Form(parser, limits, too_many)
    problems: list[InvalidRequestError] = []  # not a name of this frame, which whatever is raised holds
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                form.feed(chunk)
        parser.close()
    except multipart.ParserLimitReached as error:
        problems.append(_limit_reached(str(error), limit))
    except (multipart.MultipartError, ValueError, LookupError, AssertionError):
        empty = EmptyBodyError(f"The body is empty; send the image in the form field {field!r}.")
        problems.append(empty if form.empty else MalformedMultipartError(_MALFORMED))
    finally:
        if parser.error is not None:  # it holds the frames it came through, and with them the form and the parser
            parser.error.__traceback__ = None
    if problems:
        raise problems.pop()
    return form.fields()


def _limit_reached(reason: str, limit: int) -> MalformedMultipartError | TooManyPartsError:
    if "header" in reason.lower():
        return MalformedMultipartError("A part of the form has too many or too long headers.")
    return TooManyPartsError(f"The form has too many parts; at most {limit:,} are read.", limit=limit + _SPARE_PARTS)


def names(received: Iterable[str]) -> str:
    """Names a caller sent, printable and cut short."""
    received = list(received)
    shown = [repr(name[:40].encode("ascii", "backslashreplace").decode()) for name in received[:5]]
    return ", ".join(shown) + (", ..." if len(received) > 5 else "") if shown else "none"


class _Form:
    def __init__(self, parser: multipart.PushMultipartParser, limits: Mapping[str, int], too_many: TooMany) -> None:
        self.empty = True
        self._parser, self._unpadded = parser, Unpadded(parser.boundary)
        self._limits, self._too_many = limits, too_many
        self._opening = b"--" + parser.boundary
        self._start: bytes | None = b""  # what has come, until it is enough to see the opening
        self._others: dict[str, None] = {}
        self._found: dict[str, list[Blob]] = {name: [] for name in limits}
        self._name = ""
        self._current: Pieces | None = None
        self._epilogue: int | None = None

    def feed(self, chunk: bytes) -> None:
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
                if ready := self._unpadded.feed(chunk):
                    self._parse(ready)
                return
            except multipart.StrictParserError:
                self._parser.close()  # raises unless the form has ended: then what follows is no fault of it
                self._epilogue = 0
        self._epilogue += len(chunk)
        if self._epilogue > _EPILOGUE:
            raise BodyTooLargeError(f"More than {_EPILOGUE:,} bytes follow the end of the form.", limit=_EPILOGUE)

    def fields(self) -> dict[str, list[Blob]]:
        field, *others = self._limits
        if self._others:
            known = f"the form field {field!r}" + (f" beside {names(others)}" if others else "")
            raise UnexpectedFieldError(f"Expected {known}; received {names(self._others)}.")
        if not self._found[field]:
            raise MissingImageError(f"The form has no part {field!r}; send the image in it.")
        return self._found

    def _parse(self, ready: bytes) -> None:
        for event in self._parser.parse(ready):
            if isinstance(event, multipart.MultipartSegment):
                self._begin_part(event)
            elif self._current is None:
                continue
            elif event is not None:
                self._current.add(bytes(event))
            else:
                self._found[self._name].append(self._current.blob())

    def _begin_part(self, part: multipart.MultipartSegment) -> None:
        if any(_CONTROL.search(value) for _, value in part.headerlist):
            raise MalformedMultipartError("A part has a control character in its headers.")
        if part.header("Content-Encoding"):
            raise UnsupportedPartEncodingError("A part has a Content-Encoding; send the image as it is.")
        if (part.header("Content-Transfer-Encoding") or "binary").lower() not in {"7bit", "8bit", "binary"}:
            raise UnsupportedPartEncodingError("A part has a Content-Transfer-Encoding; send the image as binary.")
        self._current = None
        if part.name not in self._limits:
            self._others[str(part.name).encode(_CHARSET).decode("utf-8", "replace")] = None
            return
        self._name = part.name
        if len(self._found[self._name]) == self._limits[self._name]:
            raise self._too_many(self._name, self._limits[self._name])
        self._current = Pieces()


def _parser(content_type: str, parts: int) -> multipart.PushMultipartParser:
    boundary = multipart.parse_options_header(content_type)[1].get("boundary", "")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise MalformedMultipartError(f"The Content-Type needs a boundary of 1 to {_LONGEST_BOUNDARY} characters.")
    try:
        return multipart.PushMultipartParser(boundary, max_segment_count=parts, header_charset=_CHARSET, strict=True)
    except (multipart.MultipartError, ValueError):
        raise MalformedMultipartError(_MALFORMED) from None
