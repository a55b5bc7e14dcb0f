"""A worker's side: which of several it is, the door it shares with the others, and what it tells whoever started it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from clipsrv.errors import ShuttingDownError, StartError
from clipsrv.server.workers.channel import Channel, Message, line
from clipsrv.server.workers.place import Place
from clipsrv.serving.embedder import STARTING
from clipsrv.serving.stock import HEALTHY, UNHEALTHY

#: Seconds between two looks at the worker's own state.
_LOOK = 0.2
#: Looks after which it tells its state again: a sign that its loop turns.
_SIGN = 5
#: Connections taken at a time: whoever takes all that wait would leave none to the others.
_AT_A_TIME = 1

State = tuple[str, str | None]


class Worker:
    """Made in the process that was started to take this place."""

    def __init__(self, place: Place) -> None:
        self.number, self.at_once = place.number, place.at_once
        self._socket = socket.socket(fileno=place.channel)
        self._doors = [socket.socket(fileno=door) for door in place.doors]
        self._channel: Channel | None = None
        self._complete, self._others = False, list[dict[str, Any]]()
        self._asked: dict[int, asyncio.Future[str]] = {}

    async def take_connections(self, runner: web.AppRunner, backlog: int) -> None:
        """From now on some of those who come are this worker's."""
        for door in self._doors:
            await web.SockSite(runner, door, backlog=_AT_A_TIME).start()
            door.listen(backlog)  # the site has told the kernel how many this worker takes, not how many may wait

    async def attend(self, state: Callable[[], State], metrics: Callable[[], bytes]) -> None:
        """Tells `state`, (status, fault), when it changes and each second, and answers what is asked, until the
        supervisor has gone."""
        self._channel = channel = await Channel.over(self._socket.dup())
        telling = asyncio.create_task(self._tell(channel, state))
        try:
            async for message in channel.messages():
                self._hear(channel, message, metrics)
        finally:
            telling.cancel()
            channel.close()
            self._channel = None
            for asked in self._asked.values():
                asked.cancel()

    def overall(self, own: State) -> State:
        """The state of the whole, from this worker's own: starting until all have been ready, and then that of the
        worst one, beside which a worker that is being started again does not count."""
        if own[0] != HEALTHY:
            return own
        if not self._complete:
            return STARTING, None
        faults = [other.get("fault") for other in self._others if other["status"] == UNHEALTHY]
        return (UNHEALTHY, faults[0]) if faults else own

    @property
    def workers(self) -> list[dict[str, Any]]:
        """What the supervisor said last of all of them: status, process id."""
        return self._others

    async def metrics(self) -> bytes:
        """Those of all workers together. Raises ShuttingDownError if the supervisor has gone."""
        if self._channel is None:
            raise ShuttingDownError("The server is shutting down.")
        number = max(self._asked, default=0) + 1
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._channel.send({"metrics": number})
        try:
            return (await answer).encode()
        except asyncio.CancelledError:
            if self._channel is None:
                raise ShuttingDownError("The server is shutting down.") from None
            raise
        finally:
            self._asked.pop(number, None)

    def tell_failure(self, error: StartError) -> None:
        """Hands the last word to the supervisor, which says it once for all."""
        with suppress(OSError):  # it has gone: nobody is left to say anything
            self._socket.setblocking(True)
            self._socket.sendall(line({"failed": error.message, "exit_status": error.exit_status}))

    def close(self) -> None:
        """Has nothing more to say: to the supervisor it is gone."""
        self._socket.close()

    def _hear(self, channel: Channel, message: Message, metrics: Callable[[], bytes]) -> None:
        if "workers" in message:
            self._others, self._complete = message["workers"], message["complete"]
        elif "report" in message:
            channel.send({"report": message["report"], "text": metrics().decode()})
        elif (asked := self._asked.get(message["metrics"])) and not asked.done():
            asked.set_result(message["text"])

    async def _tell(self, channel: Channel, state: Callable[[], State]) -> None:
        told, looks = None, 0
        while True:
            if (now := state()) != told or looks == _SIGN:
                told, looks = now, 0
                channel.send({"status": now[0], "fault": now[1]})
            looks += 1
            await asyncio.sleep(_LOOK)
