"""A web server in a thread that serves files and misbehaves as it is told by the path of a URL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aiohttp import web

from tests.support.webserver import in_a_thread


class Website:
    """`files` by name. `asked` counts requests by path."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: Counter[str] = Counter()
        self.url = ""
        self.released = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """/NAME is the file; /FAULT/TIMES/NAME has the fault so many times, and is the file from then on."""
        self.asked[request.path] += 1
        fault, _, rest = request.path.strip("/").partition("/")
        times, _, name = rest.partition("/")
        if not rest:
            return self._file(request, fault)
        if times.isdigit() and self.asked[request.path] > int(times):
            return self._file(request, name)
        if fault == "moved":
            return web.Response(status=302, headers={"Location": request.query.get("to", request.path)})
        if fault == "status":
            return web.Response(status=int(times), text="<Error><Code>AccessDenied</Code></Error>")
        if fault == "busy":
            return web.Response(status=503, headers={"Retry-After": "0"})
        return await self._break(request, fault, self.files[name])

    def _file(self, request: web.Request, name: str) -> web.Response:
        body = self.files.get(name)
        if body is None:
            return web.Response(status=404)
        wanted = request.http_range
        if wanted.start is None:
            return web.Response(body=body)
        end = min(wanted.stop or len(body), len(body))
        span = f"bytes {wanted.start}-{end - 1}/{len(body)}"
        return web.Response(body=body[wanted.start : end], status=206, headers={"Content-Range": span})

    async def _break(self, request: web.Request, fault: str, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse()
        if fault == "gzip":
            answer.headers["Content-Encoding"] = "gzip"
        if fault != "endless":
            answer.content_length = len(body)
        await answer.prepare(request)
        await answer.write(body[: len(body) // 2])
        if fault == "stall":
            await self.released.wait()
        while fault == "endless":
            await answer.write(b"x" * 65_536)
        if request.transport is not None:
            request.transport.abort()
        return answer


@contextmanager
def website(files: Mapping[str, bytes], host: str = "127.0.0.1") -> Iterator[Website]:
    """The server on a free port of `host`."""
    site, app = Website(files), web.Application()

    async def release(app: web.Application) -> None:
        site.released.set()

    app.router.add_get("/{path:.*}", site.answer)
    app.on_shutdown.append(release)
    with in_a_thread(app, host) as site.url:
        yield site
