"""A real server on a real socket around plain encoders whose answers are known, and a client that writes raw bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from PIL import Image

from clipsrv.config import Config
from clipsrv.images.decode import DEFAULT_DECODING, ImageLimits
from clipsrv.manifest import FileSpec, ModelManifest, PreprocessSpec, TowerSpec
from clipsrv.models.model import Model
from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.vectors import Vectors, unit
from clipsrv.server.api.state import BODIES, EMBEDDER
from clipsrv.server.app import build_app, make_runner
from clipsrv.serving.embedder import Embedder

SIDE = 32
DIMENSIONS = 48
BOUNDARY = "limit"


class PoolingEncoder:
    """The mean colours of a 4 x 4 grid: a vector that says which image it came from. Override `features` for faults."""

    def embed(self, batch: NDArray[Any]) -> Vectors:
        return unit(self.features(batch))

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        cells = batch.reshape(len(batch), 3, 4, SIDE // 4, 4, SIDE // 4)
        return np.asarray(cells.mean(axis=(3, 5)).reshape(len(batch), DIMENSIONS), np.float32) + np.float32(3)

    def warm_up(self, shape: tuple[int, ...], batch_sizes: Iterable[int], fill: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass


def make_model(encoder: Encoder | None = None) -> Model:
    """A model of 32-pixel images and 48 dimensions around `encoder`; no files, no text tower."""
    spec = PreprocessSpec(SIDE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    manifest = ModelManifest(
        name="plain",
        dimensions=DIMENSIONS,
        preprocess=spec,
        towers={"vision": TowerSpec("pixel_values", "image_embeds", {"fp32": "vision.onnx"})},
        files={"vision.onnx": FileSpec("0" * 64, 1)},
        source={"weights_sha256": "0" * 64},
        created="2026-01-01",
    )
    return Model(
        manifest=manifest,
        device="cpu",
        precision="fp32",
        threads=1,
        image_encoder=encoder or PoolingEncoder(),
        text_encoder=None,
        tokenizer=None,
        decoding=DEFAULT_DECODING,
    )


def truth(blob: bytes) -> Vectors:
    """The vector that the server must give for `blob`."""
    pixels = make_model().read_image(blob, ImageLimits())
    return PoolingEncoder().embed(pixels[None])[0]


def drawn(seed: int = 0, size: tuple[int, int] = (40, 30), form: str = "PNG", mode: str = "RGB") -> bytes:
    """An encoded image of four random colours, the same for the same seed."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    image = Image.fromarray(corners).resize(size, Image.Resampling.NEAREST).convert(mode)
    file = BytesIO()
    image.save(file, form)
    return file.getvalue()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code; fails if the body is not the error body."""
        document = self.json
        assert set(document) == {"error", "request_id"}, document
        assert set(document["error"]) == {"code", "message", "details"}, document
        return str(document["error"]["code"])


@dataclass
class Served:
    app: web.Application
    port: int
    host: str = "127.0.0.1"
    replies: list[Reply] = field(default_factory=list)

    @property
    def embedder(self) -> Embedder:
        return self.app[EMBEDDER]

    @property
    def bytes_held(self) -> int:
        return self.app[BODIES].in_flight.in_use

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, limit=2**24)

    async def send(self, *pieces: bytes, seconds: float = 10) -> Reply:
        """The reply to raw bytes on a new connection. Raises ConnectionError if it ends without one."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(seconds):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                return await read_reply(reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def post(self, path: str, body: bytes, kind: str = "image/png", *headers: str) -> Reply:
        return await self.send(request("POST", path, body, f"Content-Type: {kind}", *headers))

    async def get(self, path: str, *headers: str) -> Reply:
        return await self.send(request("GET", path, None, *headers))

    async def form(self, *parts: bytes, path: str = "/embed") -> Reply:
        return await self.post(path, form(*parts), f"multipart/form-data; boundary={BOUNDARY}")


def request(method: str, path: str, body: bytes | None, *headers: str) -> bytes:
    """The bytes of a request; Content-Length is added unless the headers frame it themselves."""
    lines = [f"{method} {path} HTTP/1.1", *headers]
    lowered = [line.lower() for line in headers]
    if not any(line.startswith("host:") for line in lowered):
        lines.insert(1, "Host: localhost")
    if body is not None and not any(line.startswith(("content-length:", "transfer-encoding:")) for line in lowered):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape") + (body or b"")


def part(body: bytes, name: str = "image", head: str | bytes | None = None) -> bytes:
    """One part of a form."""
    if head is None:
        head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"'
    return (head if isinstance(head, bytes) else head.encode()) + b"\r\n\r\n" + body


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + end


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError(f"closed after {error.partial!r}") from None
    status = int(head[0].split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(status, headers, body)


@asynccontextmanager
async def serving(model: Model | Callable[[], Model] | None = None, **settings: Any) -> AsyncIterator[Served]:
    """A server of `model` with these settings, ready, on a free port of 127.0.0.1."""
    config = Config(**{"model": "plain", "models_dir": "nowhere", "decode_threads": 2, **settings})
    load = model if callable(model) else lambda: model or make_model()
    app = build_app(config, load)
    runner = make_runner(app, config)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    try:
        await app[EMBEDDER].start()
        yield Served(app, runner.addresses[0][1])
    finally:
        app[EMBEDDER].drain()
        await runner.cleanup()
        await app[EMBEDDER].stop()
        await asyncio.sleep(0.01)  # for the last transports of both sides to close their sockets


async def eventually(check: Callable[[], Awaitable[bool] | bool], seconds: float = 10) -> None:
    """Waits until `check` is true. Fails when that takes longer than `seconds`."""
    for _ in range(int(seconds / 0.02)):
        answer = check()
        if answer if isinstance(answer, bool) else await answer:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


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
