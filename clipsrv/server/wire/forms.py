"""multipart/form-data to the bytes of its parts, every cap counted while the chunks come in.

aiohttp's own form reading is not used: it answers malformed bodies with 500 and has no limit on parts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing

import multipart

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
from clipsrv.server.wire.pieces import Blob, Pieces

#: Parts a form may have beside its images before it is refused, and bytes after its end.
_SPARE_PARTS, _EPILOGUE = 8, 65_536
_LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1
#: Reads any bytes: a file name comes in whatever code page its machine has (cp932, 1252), and is never used.
_CHARSET = "latin-1"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MALFORMED = "The body is not well-formed multipart/form-data: check the boundary, and that it was sent whole."

#: What the parser raises for a form that is none.
_REFUSED = (multipart.MultipartError, ValueError, LookupError, AssertionError)
#: The error for more parts of a name than its limit.
TooMany = Callable[[str, int], InvalidRequestError]


def too_many(field: str, limit: int) -> InvalidRequestError:
    """The error for more than `limit` images in `field`."""
    if limit == 1:
        return DuplicateFieldError(f"{field!r} was sent more than once; send several images to /embed/batch.")
    return TooManyImagesError(f"The request has more than {limit:,} images (--max-images).", limit=limit)


def too_many_streamed(field: str, limit: int) -> InvalidRequestError:
    """The error for more than `limit` images of a stream."""
    return TooManyImagesError(f"The stream has more than {limit:,} images (--max-images-streamed).", limit=limit)


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
    form = _Form(content_type, limits, too_many)
    problems: list[InvalidRequestError] = []  # not a name of this frame, which whatever is raised holds
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                form.feed(chunk)
        form.close()
    except _REFUSED as error:
        problems.append(form.problem(error))
    finally:
        form.let_go()
    if problems:
        raise problems.pop()
    return form.fields()


async def stream_form(
    content_type: str, chunks: AsyncGenerator[bytes], field: str, limit: int, most_bytes: int
) -> AsyncGenerator[tuple[list[Blob], int]]:
    """The bodies of the parts named `field` as they come, each cut after `most_bytes` and one more; after every chunk
    those that are whole, and how many bytes of the next are there. Raises as `read_fields`, after what came before."""
    form = _Form(content_type, {field: limit}, too_many_streamed, most_bytes)
    problems: list[InvalidRequestError] = []
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                try:
                    form.feed(chunk)
                except (InvalidRequestError, *_REFUSED) as error:
                    problems.append(error.let_go() if isinstance(error, InvalidRequestError) else form.problem(error))
                yield form.take(), form.begun
                if problems:
                    break
        if not problems:
            form.close()
            form.fields()
    except _REFUSED as error:
        problems.append(form.problem(error))
    finally:
        form.let_go()
    if problems:
        raise problems.pop()


def names(received: Iterable[str]) -> str:
    """Names a caller sent, printable and cut short."""
    received = list(received)
    shown = [repr(name[:40].encode("ascii", "backslashreplace").decode()) for name in received[:5]]
    return ", ".join(shown) + (", ..." if len(received) > 5 else "") if shown else "none"


class _Form:
    def __init__(
        self, content_type: str, limits: Mapping[str, int], too_many: TooMany, most_bytes: int | None = None
    ) -> None:
        self._most = sum(limits.values()) + _SPARE_PARTS
        self._parser = _parser(content_type, self._most)
        self._unpadded = Unpadded(self._parser.boundary)
        self._limits, self._too_many, self._most_bytes = limits, too_many, most_bytes
        self._opening = b"--" + self._parser.boundary
        self._start: bytes | None = b""  # what has come, until it is enough to see the opening
        self._others: dict[str, None] = {}
        self._found: dict[str, list[Blob]] = {name: [] for name in limits}
        self._taken = 0
        self._name = ""
        self._current: Pieces | None = None
        self._epilogue: int | None = None
        self._empty = True

    @property
    def begun(self) -> int:
        """Bytes that are there of a part which has not ended."""
        return len(self._current) if self._current else 0

    def take(self) -> list[Blob]:
        """The parts of the first field that are whole, each once."""
        field = next(iter(self._limits))
        taken, self._found[field] = self._found[field], []
        self._taken += len(taken)
        return taken

    def feed(self, chunk: bytes) -> None:
        self._empty = False
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

    def close(self) -> None:
        """The body has ended. Raises one of _REFUSED if the form has not."""
        self._parser.close()

    def problem(self, error: Exception) -> InvalidRequestError:
        """What is wrong, where one of _REFUSED was raised."""
        field = next(iter(self._limits))
        if isinstance(error, multipart.ParserLimitReached):
            if "header" in str(error).lower():
                return MalformedMultipartError("A part of the form has too many or too long headers.")
            most = self._most - _SPARE_PARTS
            return TooManyPartsError(f"The form has too many parts; at most {most:,} are read.", limit=self._most)
        if self._empty:
            return EmptyBodyError(f"The body is empty; send the image in the form field {field!r}.")
        return MalformedMultipartError(_MALFORMED)

    def let_go(self) -> None:
        """An error of the parser holds the frames it came through, and with them the form and the parser."""
        if self._parser.error is not None:
            self._parser.error.__traceback__ = None

    def fields(self) -> dict[str, list[Blob]]:
        """All of the parts that were not taken. Raises UnexpectedFieldError, MissingImageError."""
        field, *others = self._limits
        if self._others:
            known = f"the form field {field!r}" + (f" beside {names(others)}" if others else "")
            raise UnexpectedFieldError(f"Expected {known}; received {names(self._others)}.")
        if not self._found[field] and not self._taken:
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
                self._current = None

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
            if self._most_bytes is not None:  # nobody waits for the end of a stream to be told
                self.fields()
            return
        self._name = part.name
        if len(self._found[self._name]) + self._taken == self._limits[self._name]:
            raise self._too_many(self._name, self._limits[self._name])
        self._current = Pieces(self._most_bytes)


def _parser(content_type: str, parts: int) -> multipart.PushMultipartParser:
    boundary = multipart.parse_options_header(content_type)[1].get("boundary", "")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise MalformedMultipartError(f"The Content-Type needs a boundary of 1 to {_LONGEST_BOUNDARY} characters.")
    try:
        return multipart.PushMultipartParser(boundary, max_segment_count=parts, header_charset=_CHARSET, strict=True)
    except (multipart.MultipartError, ValueError):
        raise MalformedMultipartError(_MALFORMED) from None
