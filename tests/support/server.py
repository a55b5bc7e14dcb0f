"""The real server: as a process of its own on a free port, and in this process for speed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientSession, FormData, web
from numpy.typing import NDArray

from clipsrv.config import Config
from clipsrv.models.model import Model
from clipsrv.server.api.state import EMBEDDER
from clipsrv.server.app import build_app, make_runner, model_loader
from clipsrv.serving.embedder import Embedder

ROOT = Path(__file__).parents[2]
_LISTENS = re.compile(r"listens on (http://\S+?);")


class ServerProcess:
    """`python -m clipsrv` (or `command`) with flags; its log is collected line by line."""

    def __init__(
        self,
        *flags: object,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "clipsrv"),
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLIPSRV_")}
        self.process = subprocess.Popen(
            [*command, *map(str, flags)],
            cwd=ROOT,
            env={**inherited, "PYTHONPATH": str(ROOT), **(env or {})},
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str, seconds: float = 30.0) -> str:
        """The first line of the log that holds `text`, which may be still to come."""
        with self._news:
            found = self._news.wait_for(
                lambda: next((line for line in self.lines if text in line), None) or self._ended,
                seconds,
            )
        assert isinstance(found, str), f"no {text!r} in the log:\n{self.log}"
        return found

    @property
    def url(self) -> str:
        match = _LISTENS.search(self.wait_for("listens on"))
        assert match
        return match[1]

    def ready(self) -> ServerProcess:
        self.wait_for("ready:")
        return self

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """The exit status, the log complete."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Client:
    """Asks the application served in this process, over a real socket with the server's own protocol."""

    def __init__(self, app: web.Application, runner: web.AppRunner, url: str) -> None:
        self.app, self._runner, self.url = app, runner, url
        self.session = ClientSession(url)

    @classmethod
    async def start(cls, config: Config, load: Callable[[], Model] | None = None, *, wait: bool = True) -> Client:
        """`wait`: only once the model is warm."""
        app = build_app(config, load or model_loader(config))
        runner = make_runner(app, config)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        if wait:
            await app[EMBEDDER].start()
        return cls(app, runner, f"http://127.0.0.1:{runner.addresses[0][1]}")

    @property
    def embedder(self) -> Embedder:
        return self.app[EMBEDDER]

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.ask("POST", path, **options)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, path, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def embed(self, blob: bytes) -> NDArray[np.float32]:
        """The vector of one image, sent as the guide does."""
        answer = await self.post("/embed", data=form("image", [blob]))
        assert answer.status == 200, answer.body
        return np.array(answer.json["embedding"], np.float32)

    async def close(self) -> None:
        await self.session.close()
        self.embedder.drain()
        await self._runner.cleanup()
        await self.embedder.stop()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def form(field: str, blobs: Sequence[bytes]) -> FormData:
    """multipart/form-data with one part for each blob, as curl -F and the guide's client send it."""
    data = FormData()
    for number, blob in enumerate(blobs):
        data.add_field(field, blob, filename=f"image{number}.jpg", content_type="image/jpeg")
    return data


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns once `condition` holds; the loop's other tasks run meanwhile."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to pass in time"
        await asyncio.sleep(0.005)
