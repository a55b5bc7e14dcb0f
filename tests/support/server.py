"""The real server as a process of its own on a free port: its log, its signals, its end, and raw bytes to it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from multidict import CIMultiDict

from tests.support.wire import Reply

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

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def ask(self, data: bytes, seconds: float = 20) -> Reply:
        """The reply to raw bytes: `ask` below."""
        return ask(self.address, data, seconds)

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


def demo_alone(models_dir: Path) -> ServerProcess:
    """A server of the bundled model, in an empty folder of models that becomes its own, with an index of examples/."""
    (models_dir / "demo").symlink_to(ROOT / "onnx_models" / "demo")
    common = ("--model", "demo", "--models-dir", str(models_dir), "--device", "cpu")
    index = str(models_dir / "examples.npy")
    embed = [sys.executable, "-m", "clipsrv", "embed", "examples", *common, "--quiet", "--out", index]
    subprocess.run(embed, cwd=ROOT, check=True)
    return ServerProcess(*common, "--index", index, "--port", 0)


def ask(address: tuple[str, int], data: bytes, seconds: float = 20) -> Reply:
    """The reply to raw bytes on a new connection.

    Raises ConnectionRefusedError if nobody listens, OSError if the request was lost.
    """
    with socket.create_connection(address, timeout=seconds) as sock:
        sock.sendall(data)
        response = http.client.HTTPResponse(sock)
        try:
            response.begin()
        except http.client.HTTPException as error:
            raise ConnectionResetError(str(error)) from None
        return Reply(response.status, CIMultiDict(response.getheaders()), response.read())
