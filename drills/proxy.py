"""What stands before an object store and misbehaves for some names: busy, cut, refused. All else goes through."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web
from yarl import URL

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
    made, loop = Proxy(behind, fault), asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**30)
        app[SESSION] = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        app.router.add_route("*", "/{path:.*}", made.answer)
        app.on_cleanup.append(_close)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(app: web.Application) -> None:
    await app[SESSION].close()
