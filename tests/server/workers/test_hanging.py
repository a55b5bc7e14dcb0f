"""A worker whose event loop hangs is replaced, one that is only late is not: a real worker, under a supervisor here."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clipsrv.config import Config
from clipsrv.server.listening import bind
from clipsrv.server.workers import supervisor
from clipsrv.server.workers.seat import READY, Seat
from tests.support.model import NAME
from tests.support.serving import eventually


@asynccontextmanager
async def worker(models_dir: Path, silent: int) -> AsyncIterator[Seat]:
    """The only one of a server, ready; killed after so many looks without a sign."""
    flags = ("--model", NAME, "--models-dir", str(models_dir), "--device", "cpu", "--no-text")
    stop, command = asyncio.Event(), [sys.executable, "-m", "clipsrv", "serve", *flags]
    doors = await bind("127.0.0.1", 0)
    running = supervisor.Supervisor(Config(workers=1), command, doors, silent)
    serving = asyncio.create_task(running.run(stop))
    try:
        (seat,) = running.seats
        await eventually(lambda: seat.status == READY, 120)
        yield seat
    finally:
        stop.set()
        assert await serving is None


def process_of(seat: Seat) -> int:
    return seat.process.pid if seat.process else 0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Looks ten times a second: some ten of them from one sign to the next."""
    monkeypatch.setattr(supervisor, "_LOOK", 0.1)
    caplog.set_level(logging.INFO)


@pytest.mark.asyncio
async def test_a_worker_that_is_stopped_is_killed_and_started_again(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(models_dir, 30) as seat:
        stopped = process_of(seat)
        os.kill(stopped, signal.SIGSTOP)
        await eventually(lambda: process_of(seat) not in {0, stopped} and seat.status == READY, 120)
    assert "worker 1 gave no sign of its event loop for 3 s: killing it" in caplog.text
    assert "worker 1 was ended by SIGKILL; starting it again in 0.25 s" in caplog.text


@pytest.mark.asyncio
async def test_a_worker_whose_loop_is_late_is_left_alone(models_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with worker(models_dir, 1_000_000) as seat:
        late = process_of(seat)
        os.kill(late, signal.SIGSTOP)
        await eventually(lambda: seat.looks > 20, 120)
        os.kill(late, signal.SIGCONT)
        await eventually(lambda: seat.looks < 10, 120)
        assert (process_of(seat), seat.status) == (late, READY)
    assert "killing" not in caplog.text
