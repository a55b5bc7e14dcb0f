"""The real server on a real socket in this process, around the small model: asked in raw bytes, or by aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientSession, FormData, web

from clipsrv.config import Config
from clipsrv.models.library import Library
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors
from clipsrv.server.api.state import BODIES, EMBEDDER
from clipsrv.server.app import build_app, make_runner, start
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.engine import Engine
from tests.support.library import Given
from tests.support.model import NAME, make_model, truth
from tests.support.photos import drawn
from tests.support.wire import BOUNDARY, Caller, Reply, form, part, read_reply, request

__all__ = [
    "BOUNDARY",
    "Client",
    "Reply",
    "Served",
    "assert_as_before",
    "drawn",
    "eventually",
    "form",
    "form_data",
    "make_model",
    "part",
    "read_reply",
    "request",
    "serving",
    "truth",
]


class _Inside:
    """What a test may know of a server in its own process."""

    app: web.Application

    @property
    def embedder(self) -> Embedder:
        return self.app[EMBEDDER]

    @property
    def engine(self) -> Engine:
        """The running engine; fails before the model is warm."""
        assert self.embedder.engine is not None
        return self.embedder.engine


@dataclass
class Client(_Inside):
    """Asks as a program does, through aiohttp's client."""

    app: web.Application
    session: ClientSession

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Reply:
        return await self.ask("POST", path, **options)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        async with self.session.request(method, path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def embed(self, blob: bytes) -> Vectors:
        """The vector of one image, sent as the guide does."""
        reply = await self.post("/embed", data=form_data("image", [blob]))
        assert reply.status == 200, reply.body
        return np.array(reply.json["embedding"], np.float32)


class Served(Caller, _Inside):
    """A running server: itself asks in raw bytes, its `client` by aiohttp."""

    def __init__(self, runner: web.AppRunner, port: int, session: ClientSession) -> None:
        super().__init__(port)
        self.app, self.client = runner.app, Client(runner.app, session)
        self._runner = runner

    @property
    def connections(self) -> int:
        """How many the server holds open."""
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    @property
    def bytes_held(self) -> int:
        return self.app[BODIES].in_flight.in_use


@asynccontextmanager
async def serving(
    model: Model | Callable[[], Model] | Library | None = None, /, *, wait: bool = True, **settings: Any
) -> AsyncIterator[Served]:
    """A server of `model`, or of a library of them, or of the small one, with these settings on a port of 127.0.0.1.

    Ready, unless `wait` is False: then its model is loaded by `served.embedder.start()`. Without a cache unless its
    bytes are given: most tests send the same images again to have them computed again.
    """
    config = Config(**{"model": NAME, "models_dir": "nowhere", "decode_threads": 2, "cache_bytes": 0, **settings})
    if not isinstance(model, Library):
        load = model if callable(model) else partial(_or_the_small_one, model)
        model = Given(lambda name: load(), [config.model], models_dir=Path(config.models_dir))
    app = build_app(config, model)
    runner = make_runner(app, config)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    port = runner.addresses[0][1]
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as session:
            if wait:
                await start(app)
            yield Served(runner, port, session)
    finally:
        app[EMBEDDER].drain()
        await runner.cleanup()
        await asyncio.sleep(0.01)  # for the last transports of both sides to close their sockets


def _or_the_small_one(model: Model | None) -> Model:
    return model or make_model()


def form_data(field: str, blobs: Sequence[bytes]) -> FormData:
    """multipart/form-data with one part for each blob, as curl -F and the guide's client send it."""
    data = FormData()
    for number, blob in enumerate(blobs):
        data.add_field(field, blob, filename=f"image{number}.jpg", content_type="image/jpeg")
    return data


async def eventually(check: Callable[[], Awaitable[bool] | bool], seconds: float = 30) -> None:
    """Waits until `check` is true; the loop's other tasks run meanwhile. Fails after `seconds`."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + seconds
    while True:
        answer = check()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert loop.time() < limit, f"not within {seconds} s"
        await asyncio.sleep(0.01)


async def assert_as_before(served: Served) -> None:
    """The state every row ends in: healthy, a golden image gives its golden vector, nothing is held."""
    blob = drawn(99)
    reply = await served.post("/embed", blob)
    assert reply.status == 200
    np.testing.assert_allclose(reply.json["embedding"], truth(blob), atol=1e-6)
    assert (await served.get("/health")).status == 200
    metrics = (await served.get("/metrics")).body.decode()
    for name in ("slots_in_use", "queue_images", "body_bytes_inflight", "decode_pixels_inflight"):
        assert f"clipsrv_{name} 0.0" in metrics, name
