"""One connection: its limits in time and number, and answers to what is not HTTP.

The only code that knows the inside of aiohttp. Knows nothing of endpoints; what it refuses never becomes a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import http_exceptions, web

from clipsrv.server.wire.errors import (
    COMMON_HEADERS,
    Failure,
    error_response,
    failure_of_http,
    new_request_id,
    raw_response,
)

logger = logging.getLogger("clipsrv.access")

#: Seconds that a caller told to go away has to take its answer.
_GOODBYE = 1.0
_TOO_MANY = Failure(503, "too_many_connections", "The server has too many connections. Try again in a moment.")
_TOO_SLOW = Failure(408, "request_timeout", "The head of the request did not arrive in time.")


@dataclass(frozen=True)
class ConnectionLimits:
    """`headers`: seconds for the head of a request, or with none begun; `answer`: seconds to take an answer."""

    connections: int = 2048
    headers: float = 10.0
    answer: float = 30.0


class Connection(web.RequestHandler):
    """aiohttp's connection, with a limit on how many there are, slow readers cut off, and errors in the one shape."""

    __slots__ = ("_begun", "_cut", "_limits", "_refused", "_server")

    def __init__(self, server: Server, limits: ConnectionLimits, refused: Refused, **settings: Any) -> None:
        super().__init__(server, keepalive_timeout=limits.headers, lingering_time=limits.headers, **settings)
        self._server, self._limits, self._refused = server, limits, refused
        self._begun = False  # bytes of a request have come, but not yet its whole head
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        # No buffer: writing waits until the caller has taken the answer, and what it does not take is noticed.
        transport.set_write_buffer_limits(high=0)
        if len(self._server.connections) > self._limits.connections:
            self._turn_away(_TOO_MANY)

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        if data:
            self._begun = self._request_count == count

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cut = self._loop.call_later(self._limits.answer, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget_cut()
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
        self._begun = False
        if isinstance(resp, web.HTTPException):  # raised outside of the middlewares
            resp = self._answer(failure_of_http(resp))
        return await super().finish_response(request, resp, start_time)

    def _process_keepalive(self) -> None:
        if self._begun and self._waiter and self._loop.time() >= self._next_keepalive_close_time:
            self._turn_away(_TOO_SLOW)
        else:
            super()._process_keepalive()

    def _answer(self, failure: Failure) -> web.Response:
        self._refused(failure.status, failure.code)
        request_id = new_request_id()
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
        if transport.can_write_eof():
            transport.write_eof()
        self._loop.call_later(_GOODBYE, transport.abort)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _forget_cut(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


#: Called with status and code for every refusal outside of a request.
Refused = Callable[[int, str], None]


class Server(web.Server):
    """Makes a Connection for each caller."""

    def __init__(self, like: web.Server, limits: ConnectionLimits, refused: Refused, **settings: Any) -> None:
        """Handles requests as `like` does."""
        super().__init__(like.request_handler, request_factory=like.request_factory, handler_cancellation=True)
        self._make: Callable[[], Connection] = lambda: Connection(self, limits, refused, loop=self._loop, **settings)

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
