"""The server under attack as a process: started, watched, signalled, and started again as a supervisor would."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time

import psutil

from tests.support.serving import Reply, read_reply, request


class Target:
    """`python -m drills.server` on a port that stays the same over restarts."""

    def __init__(self, *flags: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._flags = flags
        self._process: asyncio.subprocess.Process | None = None
        self.exits: list[tuple[int, float]] = []  # status, and seconds since the signal
        self._absences: list[tuple[signal.Signals, float, float]] = []  # the signal, when, and when back

    async def start(self) -> None:
        """Returns once /health is 200. Raises TimeoutError after 60 s."""
        command = [sys.executable, "-m", "drills.server", str(self.port), *self._flags]
        self._process = await asyncio.create_subprocess_exec(*command)
        async with asyncio.timeout(60):
            while not await self.healthy():  # noqa: ASYNC110 - another process, which can set no event
                await asyncio.sleep(0.05)
        if self._absences:
            number, gone, _ = self._absences[-1]
            self._absences[-1] = (number, gone, time.monotonic())

    async def stop(self, number: signal.Signals) -> None:
        """Signals and waits for the end. Raises TimeoutError if it does not come."""
        assert self._process is not None
        began = time.monotonic()
        self._absences.append((number, began, float("inf")))
        self._process.send_signal(number)
        async with asyncio.timeout(30):
            status = await self._process.wait()
        self.exits.append((status, time.monotonic() - began))

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, then SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def excuses(self, sent: float, lost: float) -> bool:
        """Whether a request sent and lost at these moments may be: after SIGKILL any, after SIGTERM only new ones."""
        return any(
            gone <= (lost if number == signal.SIGKILL else sent) and sent <= back
            for number, gone, back in self._absences
        )

    def resident(self) -> int:
        """Bytes of memory the process holds."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    async def healthy(self) -> bool:
        try:
            return (await self.send(request("GET", "/health", None), seconds=2)).status == 200
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False

    async def send(self, data: bytes, seconds: float = 60) -> Reply:
        """The reply on a connection of its own. Raises OSError, TimeoutError or IncompleteReadError."""
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
            try:
                writer.write(data)
                return await read_reply(reader)
            finally:
                writer.close()
