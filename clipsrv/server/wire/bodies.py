"""Request bodies to images and texts: bytes, time and number are counted while reading. Knows nothing of models."""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import hdrs, web

from clipsrv.server.wire.envelope import (
    BodyTooLargeError,
    EmptyBatchError,
    EmptyBodyError,
    InvalidBase64Error,
    InvalidFieldError,
    InvalidJsonError,
    InvalidRequestError,
    MissingImageError,
    RequestTimeoutError,
    TooManyTextsError,
    UnexpectedFieldError,
    UnsupportedContentEncodingError,
    UnsupportedMediaTypeError,
)
from clipsrv.server.wire.forms import names, read_form, too_many
from clipsrv.serving.admission import Admission, Lease

_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)
_URL_SAFE = str.maketrans("-_", "+/")
#: JSON of more bytes is parsed in a thread.
_LARGE = 262_144
#: Seconds an upload may pause once the server is stopping.
_HURRY = 2.0


@dataclass(frozen=True)
class PayloadLimits:
    """Bytes of a body, images (or texts) of a request. Seconds: `body_timeout` for a body and one more for each
    `min_rate` bytes of it, `pause` between two pieces of it."""

    max_body_bytes: int
    max_images: int
    body_timeout: float
    pause: float = 10.0
    min_rate: int = 500_000


class BodyReader:
    """Reads bodies within `limits`, holding their bytes against `in_flight` until the lease is released."""

    def __init__(self, limits: PayloadLimits, in_flight: Admission) -> None:
        self._limits, self.in_flight = limits, in_flight
        self._pause = limits.pause
        self._waits: set[asyncio.Timeout] = set()

    def hurry(self) -> None:
        """The server is stopping: from now on uploads that pause are given up soon."""
        self._pause = min(self._pause, _HURRY)
        until = asyncio.get_running_loop().time() + self._pause
        for wait in self._waits:
            wait.reschedule(min(until, wait.when() or until))

    def check_head(self, request: web.BaseRequest) -> None:
        """What the headers alone decide. Raises UnsupportedContentEncodingError, BodyTooLargeError."""
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise UnsupportedContentEncodingError("Send the body as it is, without Content-Encoding.")
        if (request.content_length or 0) > self._limits.max_body_bytes:
            raise self._too_large()

    def hold(self, request: web.BaseRequest, caller: Hashable = None) -> Lease:
        """A lease that grows by the bytes read. Raises OverloadedError if those announced do not fit now, and as
        `check_head`. Announcing alone takes nothing: who announces much and sends little must not shut others out."""
        self.check_head(request)
        self.in_flight.check(request.content_length or 0, caller)
        return self.in_flight.take(0, caller)

    async def read_images(self, request: web.Request, lease: Lease, *, many: bool) -> list[bytes]:
        """The encoded images of a request in the order sent; exactly one unless `many`.

        Raises InvalidRequestError of the kind that fits, OverloadedError if an unannounced body finds no room.
        """
        limit = self._limits.max_images if many else 1
        field = "images" if many else "image"
        kind = request.content_type
        if kind == "multipart/form-data":
            images = await read_form(request.headers[hdrs.CONTENT_TYPE], self._chunks(request, lease), field, limit)
        elif kind == "application/json":
            images = await self._read_json_images(request, lease, field, limit, many=many)
        elif not many and hdrs.CONTENT_TYPE in request.headers and _is_image(kind):
            images = [await self._read_all(request, lease)]
        else:
            forms = f"multipart/form-data with {field!r} or JSON" + ("" if many else ", or the image itself")
            shown = names([kind]) if hdrs.CONTENT_TYPE in request.headers else "(none)"
            raise UnsupportedMediaTypeError(
                f"Content-Type {shown} is not accepted here: send {forms}.{await self._hint(request, lease)}"
            )
        if not images:
            raise EmptyBatchError(f"The request has no image; send at least one as {field!r}.")
        return images

    async def read_texts(self, request: web.Request, lease: Lease) -> tuple[list[str], bool]:
        """The texts of {"text": str} or {"texts": [str]}, and whether it was the latter. Raises as `read_images`."""
        if request.content_type != "application/json":
            raise UnsupportedMediaTypeError('Send JSON: {"text": "..."} or {"texts": ["...", "..."]}.')
        document = await _parse_object(await self._read_all(request, lease))
        if set(document) not in ({"text"}, {"texts"}):
            raise UnexpectedFieldError(f"Send exactly one of 'text' and 'texts'; received {names(document)}.")
        many = "texts" in document
        texts = document["texts"] if many else [document["text"]]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InvalidFieldError("'text' must be a string, 'texts' a list of strings.")
        if len(texts) > self._limits.max_images:
            raise TooManyTextsError(
                f"The request has {len(texts):,} texts; at most {self._limits.max_images:,} are accepted.",
                limit=self._limits.max_images,
            )
        if not texts:
            raise EmptyBatchError("'texts' is empty; send at least one.")
        return texts, many

    async def _chunks(self, request: web.Request, lease: Lease) -> AsyncIterator[bytes]:
        loop, read = asyncio.get_running_loop(), 0
        if request.headers.get(hdrs.EXPECT) and request.version >= (1, 1):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # else aiohttp takes the answer to be under way
        end = loop.time() + self._limits.body_timeout
        while True:
            until = min(end + read / self._limits.min_rate, loop.time() + self._pause)
            try:
                async with asyncio.timeout_at(until) as wait:
                    self._waits.add(wait)
                    chunk = await request.content.readany()
            except TimeoutError:
                break
            except web.RequestPayloadError:
                raise InvalidRequestError("The body is not framed as its headers say.") from None
            finally:
                self._waits.discard(wait)
            if not chunk:
                return
            read += len(chunk)
            if read > self._limits.max_body_bytes:
                raise self._too_large()
            lease.extend(len(chunk))
            yield chunk
        raise RequestTimeoutError("The body did not arrive in time.")

    async def _read_all(self, request: web.Request, lease: Lease) -> bytes:
        return b"".join([chunk async for chunk in self._chunks(request, lease)])

    async def _read_json_images(
        self, request: web.Request, lease: Lease, field: str, limit: int, *, many: bool
    ) -> list[bytes]:
        body = await self._read_all(request, lease)
        if not body:
            raise EmptyBodyError(f"The body is empty; send JSON with {field!r}.")
        document = await _parse_object(body)
        del body
        if field not in document:
            raise MissingImageError(f"Expected the field {field!r}; received {names(document)}.")
        if len(document) > 1:
            raise UnexpectedFieldError(f"Expected the field {field!r} alone; received {names(document)}.")
        values = document[field] if many else [document[field]]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            shape = "a list of base64 strings" if many else "a base64 string"
            raise InvalidFieldError(f"{field!r} must be {shape}.")
        if len(values) > limit:
            raise too_many(field, limit)
        return await asyncio.to_thread(lambda: [_from_base64(value) for value in values])

    async def _hint(self, request: web.Request, lease: Lease) -> str:
        if not request.content_type.startswith("text/plain") or (request.content_length or 99) > 64:
            return ""
        if (await self._read_all(request, lease)).strip() == b"[object FormData]":
            return " The form was sent as a string: use the FormData of the platform, not of the 'form-data' package."
        return ""

    def _too_large(self) -> BodyTooLargeError:
        limit = self._limits.max_body_bytes
        return BodyTooLargeError(f"The body is larger than {limit:,} bytes. Send fewer images at once.", limit=limit)


def _is_image(kind: str) -> bool:
    return kind.startswith("image/") or kind == "application/octet-stream"


async def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body) if len(body) < _LARGE else await asyncio.to_thread(orjson.loads, body)
    except (orjson.JSONDecodeError, RecursionError):
        raise InvalidJsonError("The body is not valid JSON in UTF-8.") from None
    if not isinstance(document, dict):
        raise InvalidJsonError("The body must be a JSON object.")
    return document


def _from_base64(text: str) -> bytes:
    match = _DATA_URI.match(text)
    data = text[match.end() :] if match else text
    try:
        return b64decode(data.translate(_URL_SAFE) + "=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidBase64Error("An image is not valid base64 (standard or URL-safe) or a base64 data URI.") from None
