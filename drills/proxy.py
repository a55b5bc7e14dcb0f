"""What stands before an object store and misbehaves for some names: busy, cut, refused. All else goes through."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.webserver import in_a_thread

#: What becomes of a request, by its path and how often it was made: "busy" (503), "cut" (half of the body) or "refused"
#: (403); else None.
Fault = Callable[[str, int], str | None]


class Proxy:
    """Hands requests to the server at `behind` as they are. `asked` counts those that read, by path; `faults` those
    that had one, by its kind."""

    def __init__(self, behind: str, fault: Fault) -> None:
        self.behind, self.fault, self.url = behind.rstrip("/"), fault, ""
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        fault = None
        if request.method == "GET":
            self.asked[request.path] += 1
            fault = self.fault(request.path, self.asked[request.path])
        if fault:
            self.faults[fault] += 1
        if "/moveTo/" in request.path:  # Google's emulator knows it not, and says so as if it would know it later
            return web.Response(status=400)
        if fault == "busy":
            return web.Response(status=503, headers={"Retry-After": "0"})
        if fault == "refused":
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        target = URL(self.behind + request.raw_path, encoded=True)
        body = await request.read()
        asking = request.app[SESSION].request(
            request.method,
            target,
            headers=request.headers,
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=("Content-Type", "Accept", "Accept-Encoding", "User-Agent"),  # they are signed
        )
        async with asking as theirs:
            content = await theirs.read()
            return await self._pass_on(request, theirs, content, half=fault == "cut")

    async def _pass_on(
        self, request: web.Request, theirs: aiohttp.ClientResponse, content: bytes, *, half: bool
    ) -> web.StreamResponse:
        answer = web.StreamResponse(status=theirs.status, reason=theirs.reason)
        for name, value in theirs.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                answer.headers.add(name, value)
        length = theirs.headers.get("Content-Length")
        answer.content_length = int(length) if length else len(content)
        with suppress(ConnectionError):  # who asked has gone
            await answer.prepare(request)
            await answer.write(content[: len(content) // 2] if half else content)
        if half and request.transport is not None:
            request.transport.abort()
        return answer


SESSION: web.AppKey[aiohttp.ClientSession] = web.AppKey("session", aiohttp.ClientSession)


@contextmanager
def proxy(behind: str, fault: Fault) -> Iterator[Proxy]:
    """One on a free port of this machine, in a thread."""
    made, app = Proxy(behind, fault), web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", made.answer)
    app.cleanup_ctx.append(_asking)
    with in_a_thread(app) as made.url:
        yield made


async def _asking(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(auto_decompress=False, connector=connector) as app[SESSION]:
        yield
