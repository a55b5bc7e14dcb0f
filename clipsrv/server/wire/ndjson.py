"""The answer to a stream: a line of JSON an image, as it is done, and a last one that says whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import hdrs, web

from clipsrv.errors import ClipsrvError
from clipsrv.server.wire.errors import Failure, failure_of
from clipsrv.server.wire.replies import BASE64, NDJSON_TYPE, stamp, to_base64
from clipsrv.serving.admission import Admission
from clipsrv.serving.stream import Done

#: Bytes that are handed to the connection in one go: a caller has the time of an answer to take them.
_ONE_GO = 65_536


class Lines:
    """Answers one request; its bytes count against those `in_flight` until the caller has taken them."""

    def __init__(self, request: web.Request, in_flight: Admission, form: str) -> None:
        """`form` is JSON or BASE64: how vectors are written."""
        self.count = self.failed = 0
        self._request, self._in_flight, self._form = request, in_flight, form
        # nginx takes the header for its proxy_buffering.
        headers = {hdrs.CONTENT_TYPE: NDJSON_TYPE, "X-Accel-Buffering": "no"}
        self.response = web.StreamResponse(headers=headers)

    async def begin(self, embedding_id: str, read: float) -> None:
        """From here on nothing but lines can be told. `read` are the seconds until the first image had come."""
        stamp(self.response, embedding_id, {"read": read})
        await self.response.prepare(self._request)

    async def write(self, done: Sequence[Done]) -> None:
        """A line for each. Returns once the caller has taken them; raises ConnectionError."""
        for lines in self._written(done):
            with self._in_flight.take(0) as lease:
                lease.exchange(len(lines))
                await self.response.write(lines)

    async def end(self, facts: Mapping[str, Any], failure: Failure | None, request_id: str) -> None:
        """The last line: `done` if nothing failed but images. Raises ConnectionError."""
        last: dict[str, Any] = {"done": failure is None, "count": self.count, "failed": self.failed, **facts}
        if failure is not None:
            last |= {"error": _told(failure), "request_id": request_id}
        await self.response.write(orjson.dumps(last, option=orjson.OPT_APPEND_NEWLINE))
        await self.response.write_eof()

    def _written(self, done: Sequence[Done]) -> Iterator[bytes]:
        lines: list[bytes] = []
        for one in done:
            lines.append(self._line(one))
            if sum(map(len, lines)) >= _ONE_GO:
                yield b"".join(lines)
                lines.clear()
        if lines:
            yield b"".join(lines)

    def _line(self, one: Done) -> bytes:
        self.count += 1
        if isinstance(one.result, ClipsrvError):
            self.failed += 1
            line: dict[str, Any] = {"index": one.place, "error": _told(failure_of(one.result))}
        else:
            vector = one.result.vector
            line = {"index": one.place, "embedding": to_base64(vector) if self._form == BASE64 else vector}
        return orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _told(failure: Failure) -> dict[str, Any]:
    """As in an answer of its own, with the status that this would have had."""
    return {
        "code": failure.code,
        "message": failure.message,
        "details": failure.details,
        "status": failure.status,
    }
