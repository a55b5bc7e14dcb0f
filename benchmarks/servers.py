"""Starts servers, drives them, and holds them still while another is measured (Linux only)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.asking import Ask, ask_guide
from benchmarks.generator import Generator
from benchmarks.loads import Contents, Load
from benchmarks.window import Outcome
from benchmarks.wrk import Wrk, find_wrk

#: Nobody looks for a model or tells of itself while it is measured.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Rival:
    """A server to measure. `command` may hold {port}; `loads` are the names of those it is asked for."""

    name: str
    command: tuple[str, ...]
    loads: tuple[str, ...]
    ask: Ask = ask_guide
    in_process: bool = False

    def requests(self, load: Load, contents: Sequence[Contents]) -> list[bytes]:
        """A load's, as this server takes them."""
        return [self.ask(one, load.photo.format, "localhost") for one in contents]


class Process:
    """A process and its children on `cores`, with what it prints in `log`."""

    def __init__(self, rival: Rival, command: Sequence[str], cores: Sequence[int], log: Path, **pipes: Any) -> None:
        self.rival = rival
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *command],
                process_group=0,
                env={**os.environ, **_QUIET},
                **{"stdout": output, "stderr": output, **pipes},
            )

    def freeze(self) -> None:
        """Stops every thread of it, so that it cannot take a cycle from the one that is measured."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid


class Server(Process):
    """A rival that is asked over HTTP."""

    def __init__(self, rival: Rival, cores: Sequence[int], log: Path, *, patience: float = 300.0) -> None:
        """Returns once GET /health answers 200. Raises RuntimeError if it does not within `patience` seconds."""
        self.port = _free_port()
        self.address = ("127.0.0.1", self.port)
        started = time.monotonic()
        super().__init__(rival, [part.format(port=self.port) for part in rival.command], cores, log)
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() - started > patience:
                self.stop()
                raise RuntimeError(f"{rival.name} did not start: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.02)
        self.seconds_to_healthy = time.monotonic() - started

    def drive(
        self, load: Load, contents: list[Contents], warm_up: float, seconds: float, at_edge: Callable[[], None]
    ) -> Outcome:
        """Puts the load on it: see Generator.run."""
        requests = self.rival.requests(load, contents)
        return load_generator(self.address, requests, load.callers).run(warm_up, seconds, at_edge)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class InProcess(Process):
    """A rival without HTTP: `python -m benchmarks.in_process`, asked over a pipe."""

    def __init__(self, rival: Rival, cores: Sequence[int], log: Path) -> None:
        """Returns once it is ready. Raises RuntimeError if it ends before."""
        started = time.monotonic()
        super().__init__(rival, rival.command, cores, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._line() != "ready":
            raise RuntimeError(f"{rival.name} did not start: {log.read_text(errors='replace')[-1500:]}")
        self.seconds_to_healthy = time.monotonic() - started

    def drive(
        self, load: Load, contents: list[Contents], warm_up: float, seconds: float, at_edge: Callable[[], None]
    ) -> Outcome:
        """Puts the load on it; it makes the same contents itself."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps([load.name, warm_up, seconds])}\n".encode())
        self._process.stdin.flush()
        for expected in ("edge", "edge"):
            if self._line() != expected:
                raise RuntimeError(f"{self.rival.name} ended")
            at_edge()
        return Outcome(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()


def load_generator(address: tuple[str, int], requests: list[bytes], callers: int) -> Wrk | Generator:
    """wrk where it is installed, else our own."""
    program = find_wrk()
    return Generator(address, requests, callers) if program is None else Wrk(program, address, requests, callers)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
