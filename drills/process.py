"""The server under attack as a process: started, watched, signalled, and started again as a supervisor would."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time

import psutil

from tests.support.server import ServerProcess
from tests.support.wire import Caller, Reply, request


class Target(Caller):
    """`python -m drills.server` on a port that stays the same over restarts; asked in raw bytes."""

    def __init__(self, *flags: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            super().__init__(probe.getsockname()[1])
        self._flags = flags
        self._process: ServerProcess | None = None
        self.exits: list[tuple[int, float]] = []  # status, and seconds since the signal
        self._absences: list[tuple[signal.Signals, float, float]] = []  # the signal, when, and when back

    async def start(self) -> None:
        """Returns once /health is 200. Raises TimeoutError after 60 s."""
        command = (sys.executable, "-m", "drills.server")
        self._process = ServerProcess(self.port, *self._flags, command=command)
        async with asyncio.timeout(60):
            while not await self.healthy():  # noqa: ASYNC110 - another process, which can set no event
                await asyncio.sleep(0.05)
        if self._absences:
            number, gone, _ = self._absences[-1]
            self._absences[-1] = (number, gone, time.monotonic())

    async def stop(self, number: signal.Signals) -> None:
        """Signals and waits for the end, and prints what the server said. Raises TimeoutExpired if it does not end."""
        server, began = self._running, time.monotonic()
        self._absences.append((number, began, float("inf")))
        server.signal(number)
        status = await asyncio.to_thread(server.wait, 30)
        print(server.log, end="", file=sys.stderr)
        server.close()
        self.exits.append((status, time.monotonic() - began))

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, then SIGCONT."""
        self._running.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._running.signal(signal.SIGCONT)

    def excuses(self, sent: float, lost: float) -> bool:
        """Whether a request sent and lost at these moments may be: after SIGKILL any, after SIGTERM only new ones."""
        return any(
            gone <= (lost if number == signal.SIGKILL else sent) and sent <= back
            for number, gone, back in self._absences
        )

    def resident(self) -> int:
        """Bytes of memory the process holds."""
        return int(psutil.Process(self._running.process.pid).memory_info().rss)

    async def healthy(self) -> bool:
        try:
            return (await self.send(request("GET", "/health", None), seconds=2)).status == 200
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False

    async def send(self, *pieces: bytes, seconds: float = 60) -> Reply:
        """The reply on a connection of its own. Raises OSError, TimeoutError or IncompleteReadError."""
        return await super().send(*pieces, seconds=seconds)

    @property
    def _running(self) -> ServerProcess:
        assert self._process is not None
        return self._process
