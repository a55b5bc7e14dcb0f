"""Starts servers, holds them still while another is measured, and reads what they cost from /proc (Linux only)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loads import Load, guide_requests, infinity_requests

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rival:
    """A server to measure. `command` may hold {port}; `loads` are the names of those it is asked for."""

    name: str
    command: tuple[str, ...]
    loads: tuple[str, ...]
    requests: Callable[[Load, Sequence[bytes], str], list[bytes]] = guide_requests


class Server:
    """A running rival on `cores`, with its log in `log`."""

    def __init__(self, rival: Rival, cores: Sequence[int], log: Path, *, patience: float = 180.0) -> None:
        """Returns once GET /health answers 200. Raises RuntimeError if it does not within `patience` seconds."""
        self.rival, self.port, self._log = rival, _free_port(), log
        self.address = ("127.0.0.1", self.port)
        started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *(part.format(port=self.port) for part in rival.command)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
            )
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() - started > patience:
                self.stop()
                raise RuntimeError(f"{rival.name} did not start: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.02)
        self.seconds_to_healthy = time.monotonic() - started

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

    def cpu_seconds(self) -> float:
        """CPU time of its processes so far, user and system, those that ended included."""
        return sum(_cpu(pid) for pid in self._pids())

    def peak_rss(self) -> int:
        """Bytes of the highest resident size since `forget_peak`, of its processes together."""
        return sum(_status(pid, "VmHWM") for pid in self._pids())

    def forget_peak(self) -> None:
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    @property
    def pid(self) -> int:
        return self._process.pid

    def _pids(self) -> list[int]:
        return list(_tree(self._process.pid))

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def clipsrv_rival(
    name: str, python: str, models: Path, model: str, flags: Sequence[str], loads: Sequence[str]
) -> Rival:
    """Our own server with `flags`, run by the interpreter `python`."""
    serve = (
        "-m",
        "clipsrv",
        "--models-dir",
        str(models),
        "--model",
        model,
        "--port",
        "{port}",
        "--log-level",
        "warning",
    )
    return Rival(name, (python, *serve, *flags), tuple(loads))


def flask_rival(python: str, checkpoint: Path, loads: Sequence[str]) -> Rival:
    return Rival("flask + torch", (python, "-m", "benchmarks.flask_baseline", str(checkpoint), "{port}"), tuple(loads))


def infinity_rival(python: str, checkpoint: Path, loads: Sequence[str]) -> Rival:
    """infinity's torch engine; `python` is the interpreter it is installed for."""
    command = (
        str(Path(python).parent / "infinity_emb"),
        "v2",
        "--model-id",
        str(checkpoint),
        "--served-model-name",
        "rival",
    )
    flags = ("--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-model-warmup", "--port", "{port}")
    return Rival("infinity", (*command, *flags), tuple(loads), infinity_requests)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from _tree(int(child))


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS  # utime, stime, and those of children waited for


def _status(pid: int, key: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key + ":")), 0)
