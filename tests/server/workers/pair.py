"""A server of two workers, and connections to each of them."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.model import NAME
from tests.support.server import ServerProcess


class Pair(ServerProcess):
    """Connections stay open until `hang_up`."""

    def __init__(self, models_dir: Path, *flags: object, env: Mapping[str, str] | None = None) -> None:
        common = ("--model", NAME, "--models-dir", models_dir, "--device", "cpu", "--port", 0, "--workers", 2)
        super().__init__(*common, *flags, env=env)
        self._opened: list[http.client.HTTPConnection] = []

    def all_ready(self) -> Pair:
        self.wait_for("all 2 workers are ready", 120)
        return self

    def health(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.to_someone()[1])
        return body

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.health()["workers"]]

    def to_someone(self) -> tuple[http.client.HTTPConnection, bytes]:
        """A connection that stays open, and what /health says over it."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        self._opened.append(connection)
        connection.request("GET", "/health")
        return connection, connection.getresponse().read()

    def hang_up(self) -> None:
        """Closes all connections."""
        while self._opened:
            self._opened.pop().close()

    def close(self) -> None:
        self.hang_up()
        super().close()

    def to_each(self) -> dict[int, http.client.HTTPConnection]:
        """A connection to either worker, by its number: as many are opened as that takes."""
        found: dict[int, http.client.HTTPConnection] = {}

        def reaches_both() -> bool:
            connection, body = self.to_someone()
            found.setdefault(json.loads(body)["worker"], connection)
            return len(found) == 2

        until(reaches_both)
        return found


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    """Waits for it; connections that are cut while a worker is killed count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if holds():
                return
        time.sleep(0.05)
    raise AssertionError(f"{holds.__name__} did not come to hold")


def is_there(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
