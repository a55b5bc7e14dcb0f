"""One connection: its limits in time and number, and answers to what is not HTTP.

It alone leans on what aiohttp and asyncio do not document (INSIDE). What it refuses never becomes a request.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import HttpVersion11, http_exceptions, web

from clipsrv.server.http.request_ids import request_id
from clipsrv.server.wire.errors import (
    COMMON_HEADERS,
    Failure,
    error_response,
    failure_of_http,
    new_request_id,
    raw_response,
)

logger = logging.getLogger("clipsrv.access")

#: What is used here of the two beyond their documentation; a test names what a release changes.
INSIDE: Mapping[type, tuple[str, ...]] = {
    web.RequestHandler: (
        *("connection_made", "data_received", "pause_writing", "resume_writing", "connection_lost"),
        *("handle_error", "finish_response", "keep_alive", "close", "force_close", "transport"),
        *("resume_reading", "_reading_paused"),
    ),
    web.Server: ("connections", "request_handler", "request_factory"),
    web.AppRunner: ("_make_server",),
    _SelectorSocketTransport: ("max_size",),
}

#: The version a request claims, where it is none of ours; it is answered in HTTP/1.1.
OTHER_VERSION = web.RequestKey("other version", str)
#: Called with status and code for every refusal outside of a request.
Refused = Callable[[int, str], None]
#: Seconds that a caller told to go away has to take its answer.
_GOODBYE = 1.0
#: Bytes read of all connections before the first one's next turn, so many of each; asyncio's 262,144 are too many.
_ROUND, _LEAST, _MOST = 524_288, 8_192, 65_536
#: Connections beyond the limit that are told why; more are cut off at once, for each takes a file while it reads.
TOLD = 64
_TOO_MANY = Failure(503, "too_many_connections", "The server has too many connections. Try again in a moment.")
_TOO_SLOW = Failure(408, "request_timeout", "The head of the request did not arrive in time.")


@dataclass(frozen=True)
class ConnectionLimits:
    """Seconds: `headers` for the head of a request, the first counted from connecting; `idle` between requests;
    `answer` to take an answer."""

    connections: int = 2048
    headers: float = 10.0
    idle: float = 75.0
    answer: float = 30.0


class Connection(web.RequestHandler):
    """aiohttp's connection, with a limit on how many there are, slow callers cut off, and errors in the one shape."""

    __slots__ = ("_begun", "_cut", "_head", "_in_work", "_limits", "_refused", "_server", "idle_since")

    def __init__(self, server: Server, limits: ConnectionLimits, refused: Refused, **settings: Any) -> None:
        super().__init__(server, keepalive_timeout=limits.idle, lingering_time=limits.headers, **settings)
        self._server, self._limits, self._refused = server, limits, refused
        #: When its last request was answered, by the loop's clock; None with a request begun, or none ever.
        self.idle_since: float | None = None
        self._begun = False  # bytes of a request have come, but not yet its whole head
        self._in_work = False
        self._head: asyncio.Handle | None = None
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        # No buffer: writing waits until the caller has taken the answer, and what it does not take is noticed.
        transport.set_write_buffer_limits(high=0)
        self._share_reading()
        self._expect_head()
        excess = len(self._server.connections) - self._limits.connections
        if excess > 0 and not self._server.make_room():
            self._turn_away(_TOO_MANY)
            if excess > TOLD:
                transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._share_reading()
        if data and not self._in_work:
            self._begun, self.idle_since = True, None
            if self._head is None:
                self.keep_alive(True)  # aiohttp's timer is that of idleness
                self._expect_head()

    def head_received(self) -> None:
        """A request has its whole head, and begins."""
        self._in_work, self._begun, self.idle_since = True, False, None
        self._forget_head()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # Asked after each chunk of a body, it has aiohttp go on parsing: 16,384 times in one go for chunks of a byte.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        super().pause_writing()
        assert self.transport is not None
        self._cut = asyncio.get_running_loop().call_later(self._limits.answer, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget_cut()
        self._forget_head()
        self.idle_since = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refused. It never repeats what was sent."""
        if status == 500:
            logger.error("connection failed", exc_info=exc)
            return self._answer(Failure(500, "internal", "Something went wrong inside the server."))
        if isinstance(exc, http_exceptions.LineTooLong):
            return self._answer(Failure(431, "headers_too_large", "The request line or a header is too long."))
        if "Too many headers" in str(exc):
            return self._answer(Failure(431, "headers_too_large", "The request has too many headers."))
        logger.debug("not HTTP: %s", type(exc).__name__)
        return self._answer(Failure(400, "invalid_request", "This is not a well-formed HTTP/1.1 request."))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # raised outside of the middlewares
            assert isinstance(request, web.Request)
            resp = self._answer(failure_of_http(resp), request_id(request))
        finished = await super().finish_response(request, resp, start_time)
        if request.content.is_eof():  # else aiohttp reads on for a while, and closes
            self._in_work, self.idle_since = False, asyncio.get_running_loop().time()
        return finished

    def hang_up(self) -> None:
        """Ends an idle connection."""
        self.idle_since = None
        self.force_close()

    def _share_reading(self) -> None:
        if isinstance(self.transport, _SelectorSocketTransport):
            self.transport.max_size = min(_MOST, max(_LEAST, _ROUND // len(self._server.connections)))

    def _answer(self, failure: Failure, request_id: str | None = None) -> web.Response:
        self._refused(failure.status, failure.code)
        request_id = request_id or new_request_id()
        response = error_response(failure, request_id)
        response.headers.update({**COMMON_HEADERS, "X-Request-Id": request_id})
        response.force_close()
        return response

    def _turn_away(self, failure: Failure) -> None:
        """Answers outside of any request and hangs up, giving the caller a moment to read why."""
        self._refused(failure.status, failure.code)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self.close()
        transport.write(raw_response(failure))
        with suppress(OSError):  # the caller has gone in this very moment
            transport.write_eof()
        asyncio.get_running_loop().call_later(_GOODBYE, transport.abort)

    def _expect_head(self) -> None:
        self._head = asyncio.get_running_loop().call_later(self._limits.headers, self._head_is_late)

    def _head_is_late(self) -> None:
        # Not at once: after a pause of the loop the head may have come, and only wait for its turn.
        self._head = asyncio.get_running_loop().call_soon(self._give_up)

    def _give_up(self) -> None:
        if self._begun:
            self._turn_away(_TOO_SLOW)
        else:
            self.force_close()

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _forget_cut(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


class Server(web.Server):
    """Makes a Connection for each caller."""

    def __init__(self, like: web.Server, limits: ConnectionLimits, refused: Refused, **settings: Any) -> None:
        """Handles requests as `like` does."""

        def begin(message: Any, payload: Any, connection: Any, *others: Any) -> web.BaseRequest:
            connection.head_received()
            if message.version.major == 1:
                return like.request_factory(message, payload, connection, *others)
            request = like.request_factory(message._replace(version=HttpVersion11), payload, connection, *others)
            request[OTHER_VERSION] = f"HTTP/{message.version.major}.{message.version.minor}"
            return request

        super().__init__(like.request_handler, request_factory=begin, handler_cancellation=True)
        loop = asyncio.get_running_loop()
        self._make: Callable[[], Connection] = lambda: Connection(self, limits, refused, loop=loop, **settings)

    def make_room(self) -> bool:
        """Ends the connection that has been idle longest, if there is one."""
        idle = [one for one in self.connections if isinstance(one, Connection) and one.idle_since is not None]
        if idle:
            min(idle, key=lambda one: one.idle_since or 0.0).hang_up()
        return bool(idle)

    def __call__(self) -> Connection:
        return self._make()


class Runner(web.AppRunner):
    """Runs an application over such connections."""

    def __init__(
        self, app: web.Application, limits: ConnectionLimits, refused: Refused, *, shutdown_timeout: float = 2.0
    ) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=shutdown_timeout)
        self._limits, self._refused = limits, refused

    async def _make_server(self) -> Server:
        return Server(await super()._make_server(), self._limits, self._refused, access_log=None, auto_decompress=False)
