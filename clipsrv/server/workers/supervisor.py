"""Starts the workers, starts one again that ended, adds up what they say, and ends with the last. Serves nobody itself.

It loads no model and takes no connection: what callers send can not end it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from clipsrv import __version__
from clipsrv.config import Config
from clipsrv.server.listening import bind, url
from clipsrv.server.signals import signalled
from clipsrv.server.workers import sums
from clipsrv.server.workers.channel import Channel, Message
from clipsrv.server.workers.place import Place
from clipsrv.server.workers.seat import ENDED, READY, STARTING, Failure, Seat

logger = logging.getLogger("clipsrv")

#: Seconds before a worker that ended is started again, the first time and at most, and after which one that lived so
#: long counts as one that never ended.
_FIRST_PAUSE, _LONGEST_PAUSE, _SOUND = 0.25, 30.0, 60.0
#: Seconds to wait for a worker's metrics: then those that it told last count.
_REPORT = 2.0
#: Seconds beyond the grace time after which a worker is ended the hard way.
_PATIENCE = 5.0
#: Seconds between two looks at whether a worker gave a sign, and looks in a row without one after which it is killed.
_LOOK, _SILENT = 1.0, 60


def next_pause(before: float, lived: float) -> float:
    """Seconds to wait before a worker is started again that lived so many, after a pause of `before` the last time."""
    return _FIRST_PAUSE if lived > _SOUND else min(2 * before, _LONGEST_PAUSE)


async def supervise(config: Config, command: Sequence[str]) -> Failure | None:
    """Serves with `config.workers` processes of `command`, each told its place, until SIGTERM or SIGINT; None if all
    has ended as was asked. Raises AddressError."""
    doors = await bind(config.host, config.port)
    supervisor = Supervisor(config, command, doors)
    stop = signalled(supervisor.signal)
    where = url(doors[0].getsockname())
    logger.info("clipsrv %s listens on %s; starting %d workers", __version__, where, config.workers)
    return await supervisor.run(stop)


class Supervisor:
    """Runs once. A worker that gave no sign of its event loop in `silent` looks in a row is killed."""

    def __init__(
        self, config: Config, command: Sequence[str], doors: Sequence[socket.socket], silent: int = _SILENT
    ) -> None:
        self._config, self._command, self._doors, self._silent = config, command, doors, silent
        self.seats = [Seat(number) for number in range(1, config.workers + 1)]
        self._stop = asyncio.Event()
        self._failure: Failure | None = None
        self._complete, self._restarts, self._hangs = False, 0, 0
        self._kept: sums.Families = {}
        self._reports = 0
        self._collecting: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> Failure | None:
        """Until `stop` is set and all workers have ended, or one that cannot be started ends the whole."""
        self._stop = stop
        keeping = [asyncio.create_task(self._keep(seat)) for seat in self.seats]
        await stop.wait()
        logger.info("stopping %d workers", sum(seat.process is not None for seat in self.seats))
        for door in self._doors:
            door.close()  # each worker has it open until it is done
        self.signal(signal.SIGTERM)
        _, late = await asyncio.wait(keeping, timeout=self._config.grace + _PATIENCE)
        if late:
            logger.error("%d workers did not end: killing them", len(late))
            self.signal(signal.SIGKILL)
            await asyncio.wait(keeping)
        for task in keeping:
            task.result()
        return self._failure

    def signal(self, number: int) -> None:
        """Sends a signal to every worker that runs."""
        for seat in self.seats:
            if seat.process is not None:
                with suppress(ProcessLookupError):
                    seat.process.send_signal(number)

    async def _keep(self, seat: Seat) -> None:
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE / 2
        while not self._stop.is_set():
            began = loop.time()
            how = await self._live(seat)
            if self._stop.is_set():
                return
            if not self._complete or (seat.failure and not self._are_ready()):
                words = f"Worker {seat.number} {how} before it was ready."
                self._failure = self._failure or seat.failure or Failure(words, 1)
                self._stop.set()
                return
            self._restarts += 1
            pause = next_pause(pause, loop.time() - began)
            why = f": {seat.failure.message}" if seat.failure else ""
            logger.error("worker %d %s; starting it again in %g s%s", seat.number, how, pause, why)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _live(self, seat: Seat) -> str:
        """One process of a seat from start to end; how it ended."""
        ours, its = socket.socketpair()
        seat.status, seat.fault, seat.failure, seat.looks = STARTING, None, None, 0
        at_once = not self._are_ready()
        with its:
            doors = tuple(door.fileno() for door in self._doors)
            place = Place(seat.number, at_once, its.fileno(), doors)
            files = (place.channel, *doors)
            # Not descriptor 2, which may be set apart for what libraries write.
            seat.process = await asyncio.create_subprocess_exec(
                *self._command, env=place.environment(), pass_fds=files, stderr=sys.stderr
            )
        if self._stop.is_set():  # what was sent to all has missed this one
            seat.process.terminate()
        seat.channel = await Channel.over(ours)
        self._tell()
        watching = asyncio.create_task(self._watch(seat, seat.process))
        try:
            async for message in seat.channel.messages():
                self._hear(seat, message)
            status = await seat.process.wait()
        finally:
            watching.cancel()
            seat.channel.close()
            seat.process, seat.channel, seat.status, seat.fault = None, None, ENDED, None
            self._kept = sums.together([self._kept, sums.counted(seat.reported)])
            seat.reported = {}
            for asked in seat.asked.values():
                asked.cancel()
            self._tell()
        return _how(status)

    async def _watch(self, seat: Seat, process: Process) -> None:
        """Kills a worker whose loop hangs, once it has started. Looks are counted, and not time: while the machine
        sleeps, or has no turn for this process either, nobody is silent."""
        while seat.looks < self._silent:
            await asyncio.sleep(_LOOK)
            seat.looks += seat.status != STARTING
        logger.error("worker %d gave no sign of its event loop for %g s: killing it", seat.number, self._silent * _LOOK)
        self._hangs += 1
        with suppress(ProcessLookupError):
            process.kill()

    def _hear(self, seat: Seat, message: Message) -> None:
        seat.looks = 0
        if "status" in message:
            if (message["status"], message["fault"]) == (seat.status, seat.fault):
                return  # a sign
            seat.status, seat.fault = message["status"], message["fault"]
            if not self._complete and self._are_ready(all):
                self._complete = True
                logger.info("all %d workers are ready", len(self.seats))
            self._tell()
        elif "failed" in message:
            seat.failure = Failure(message["failed"], message["exit_status"])
        elif "report" in message:
            seat.reported = sums.parse(message["text"])
            if (asked := seat.asked.get(message["report"])) and not asked.done():
                asked.set_result(None)
        else:
            task = asyncio.create_task(self._collect(seat, message["metrics"]))
            self._collecting.add(task)
            task.add_done_callback(self._collecting.discard)

    def _are_ready(self, how: Any = any) -> bool:
        return bool(how(seat.status == READY for seat in self.seats))

    def _tell(self) -> None:
        """Everyone how all are."""
        message = {"workers": [seat.facts() for seat in self.seats], "complete": self._complete}
        for seat in self.seats:
            if seat.channel is not None:
                seat.channel.send(message)

    async def _collect(self, asking: Seat, number: int) -> None:
        """The metrics of all, to the worker that was asked for them."""
        self._reports += 1
        report = self._reports
        for seat in self.seats:
            if seat.channel is not None:
                seat.asked[report] = asyncio.get_running_loop().create_future()
                seat.channel.send({"report": report})
        waiting = [asked for seat in self.seats if (asked := seat.asked.get(report))]
        await asyncio.wait(waiting, timeout=_REPORT)
        for seat in self.seats:
            seat.asked.pop(report, None)
        own = sums.gauges(
            {
                "clipsrv_workers": ("gauge", "Processes that serve", len(self.seats)),
                "clipsrv_workers_ready": (
                    "gauge",
                    "Of these, those that are healthy",
                    sum(seat.status == READY for seat in self.seats),
                ),
                "clipsrv_worker_restarts_total": ("counter", "Workers that ended unasked", self._restarts),
                "clipsrv_worker_hangs_total": ("counter", "Of these, those killed as their loop hung", self._hangs),
            }
        )
        whole = sums.together([self._kept, *(seat.reported for seat in self.seats), own])
        if asking.channel is not None:
            asking.channel.send({"metrics": number, "text": sums.written(whole)})


def _how(status: int) -> str:
    """How a process ended, in words."""
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def interpreter() -> list[str]:
    """How this Python was started, up to what it runs."""
    given = sys.orig_argv[1:]
    # A program that is a file has no current folder among those in which modules are looked for.
    return [sys.executable, *(given[: given.index("-m")] if "-m" in given else ["-P"])]
