"""What the supervisor knows of one of its workers, whichever process that is by now."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from typing import Any, NamedTuple

from clipsrv.server.workers import sums
from clipsrv.server.workers.channel import Channel

STARTING, READY, ENDED = "starting", "healthy", "restarting"


class Failure(NamedTuple):
    """Why the whole ends, and its exit status."""

    message: str
    exit_status: int


class Seat:
    """`looks` is how often in a row the supervisor looked for a sign of the worker and there was none."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.channel: Channel | None = None
        self.status = STARTING
        self.fault: str | None = None
        self.failure: Failure | None = None
        self.looks = 0
        self.reported: sums.Families = {}
        self.asked: dict[int, asyncio.Future[None]] = {}

    def facts(self) -> dict[str, Any]:
        facts = {"status": self.status, "pid": self.process.pid if self.process else None, "fault": self.fault}
        return {key: value for key, value in facts.items() if value is not None}
