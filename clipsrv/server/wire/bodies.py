"""Request bodies as bytes, counted while they are read: how many, for how long. Knows nothing of what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import hdrs, web

from clipsrv.errors import ShuttingDownError
from clipsrv.server.wire.envelope import (
    BodyTooLargeError,
    InvalidRequestError,
    RequestTimeoutError,
    UnsupportedContentEncodingError,
)
from clipsrv.server.wire.pieces import Pieces, Whole
from clipsrv.serving.admission import Admission, Lease

#: Seconds an upload may pause once the server is stopping.
_HURRY = 2.0
#: Bytes of a body that may always grow so far.
_SMALL = 2**20


@dataclass(frozen=True)
class BodyLimits:
    """Bytes of a body. Seconds: `body_timeout` for a body and one more for each `min_rate` bytes of it, `pause`
    between two pieces of it."""

    max_body_bytes: int
    body_timeout: float
    pause: float = 10.0
    min_rate: int = 500_000


class ByteLimit(NamedTuple):
    """The most bytes of a body, and the flag that says so."""

    most: int
    flag: str


class Pace:
    """Of the item of a body that is arriving: bytes `read`, and seconds `waited` for its sender."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Another item."""
        self.read, self.waited = 0, 0.0

    def add(self, read: int, waited: float) -> None:
        self.read += read
        self.waited += waited


class BodyReader:
    """Reads bodies within `limits`, holding their bytes against `in_flight` until the lease is released."""

    def __init__(self, limits: BodyLimits, in_flight: Admission, check_room: Callable[[], None] = lambda: None) -> None:
        """`check_room` raises MemoryError when a body had better not grow any more: beyond it nothing could be told."""
        self._check_room = check_room
        self._limits, self.in_flight = limits, in_flight
        self._limit = ByteLimit(limits.max_body_bytes, "--max-body-bytes")
        self._hurried, self._pause = False, limits.pause
        self._waits: set[asyncio.Timeout] = set()

    def hurry(self) -> None:
        """The server is stopping: from now on uploads that pause are given up soon."""
        self._hurried, self._pause = True, min(self._pause, _HURRY)
        until = asyncio.get_running_loop().time() + self._pause
        for wait in self._waits:
            wait.reschedule(min(until, wait.when() or until))

    def check_encoding(self, request: web.BaseRequest) -> None:
        """Raises UnsupportedContentEncodingError."""
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise UnsupportedContentEncodingError("Send the body as it is, without Content-Encoding.")

    def check_head(self, request: web.BaseRequest) -> None:
        """What the headers alone decide. Raises UnsupportedContentEncodingError, BodyTooLargeError."""
        self.check_encoding(request)
        if (request.content_length or 0) > self._limit.most:
            raise _too_large(self._limit)

    def hold(self, request: web.BaseRequest, caller: Hashable = None) -> Lease:
        """A lease that grows by the bytes read. Raises OverloadedError if those announced do not fit now, and as
        `check_head`. Announcing alone takes nothing: who announces much and sends little must not shut others out."""
        self.check_head(request)
        self.in_flight.check(request.content_length or 0, caller)
        return self.in_flight.take(0, caller)

    async def chunks(self, request: web.Request, lease: Lease, limit: ByteLimit | None = None) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises InvalidRequestError of the kind that fits, OverloadedError if one that was not
        announced finds no room, MemoryError."""
        loop, read, limit = asyncio.get_running_loop(), 0, min(limit or self._limit, self._limit)
        if (request.content_length or 0) > limit.most:
            raise _too_large(limit)
        _invite(request)
        end = loop.time() + self._limits.body_timeout
        while chunk := await self._piece(request, end + read / self._limits.min_rate):
            read += len(chunk)
            if read > limit.most:
                raise _too_large(limit)
            if read > _SMALL:
                self._check_room()
            lease.extend(len(chunk))
            yield chunk

    async def endless(self, request: web.Request, lease: Lease, pace: Pace) -> AsyncGenerator[bytes]:
        """A body of any length as it comes, each item of it in the time of a body: reading stops while there is no
        room for more. Raises as `chunks`, ShuttingDownError as soon as the server is stopping."""
        loop = asyncio.get_running_loop()
        _invite(request)
        while not self._hurried:
            began = loop.time()
            time = self._limits.body_timeout + pace.read / self._limits.min_rate - pace.waited
            try:
                chunk = await self._piece(request, began + time)
            except RequestTimeoutError:
                if self._hurried:
                    break
                raise
            if not chunk:
                return
            pace.add(len(chunk), loop.time() - began)
            self._check_room()
            await self._grow(lease, len(chunk))
            yield chunk
        raise ShuttingDownError("The server is shutting down.")

    async def _grow(self, lease: Lease, count: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.body_timeout):
                await lease.grow(count)
                return
        lease.extend(count)

    async def _piece(self, request: web.Request, until: float) -> bytes:
        """What comes next before `until`, by the loop's clock; b"" at the end of the body."""
        until = min(until, asyncio.get_running_loop().time() + self._pause)
        problems: list[Exception] = [RequestTimeoutError("The body did not arrive in time.")]
        try:
            async with asyncio.timeout_at(until) as wait:
                self._waits.add(wait)
                return await request.content.readany()
        except TimeoutError:
            pass
        except web.RequestPayloadError:
            raise InvalidRequestError("The body is not framed as its headers say.") from None
        except ConnectionError as error:
            error.__traceback__ = None  # the connection keeps it, and with it the frames that it came through
            problems.append(ConnectionResetError("The caller has gone."))
        finally:
            self._waits.discard(wait)
        raise problems.pop()

    async def read(self, request: web.Request, lease: Lease, limit: ByteLimit | None = None) -> Whole:
        """The whole body. Raises as `chunks`."""
        pieces = Pieces()
        async for chunk in self.chunks(request, lease, limit):
            pieces.add(chunk)
        return pieces.whole()


def _invite(request: web.Request) -> None:
    """Has the caller send its body, if it waits for that."""
    if request.headers.get(hdrs.EXPECT) and request.version >= (1, 1):
        if request.transport is None:
            raise ConnectionResetError
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large(limit: ByteLimit) -> BodyTooLargeError:
    message = f"The body is larger than {limit.most:,} bytes ({limit.flag}). Send less at once."
    return BodyTooLargeError(message, limit=limit.most)
