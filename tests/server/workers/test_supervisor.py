"""What the supervisor does of itself, without a worker, and what a worker makes of what it is told."""

from __future__ import annotations

import asyncio
import socket

import pytest

from clipsrv.errors import ShuttingDownError
from clipsrv.server.workers.channel import Channel, line
from clipsrv.server.workers.place import Place
from clipsrv.server.workers.supervisor import next_pause
from clipsrv.server.workers.worker import Worker

HEALTHY, STARTING, UNHEALTHY = (
    {"status": "healthy"},
    {"status": "starting"},
    {"status": "unhealthy", "fault": "hanging"},
)


def test_a_worker_that_ends_again_and_again_is_started_later_each_time() -> None:
    pauses = [0.125]
    for _ in range(9):
        pauses.append(next_pause(pauses[-1], lived=1.0))
    assert pauses[1:] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert next_pause(30.0, lived=61.0) == 0.25


@pytest.mark.asyncio
async def test_messages_arrive_in_order_and_one_that_is_cut_is_none() -> None:
    ours, its = socket.socketpair()
    channel = await Channel.over(ours)
    await asyncio.get_running_loop().run_in_executor(None, its.sendall, line({"a": 1}) + line({"b": "\n"}) + b'{"c": ')
    its.close()
    assert [message async for message in channel.messages()] == [{"a": 1}, {"b": "\n"}]
    channel.send({"nobody": "hears"})
    channel.close()


@pytest.mark.asyncio
async def test_a_worker_tells_its_state_answers_what_it_is_asked_and_ends_with_the_supervisor() -> None:
    ours, its = socket.socketpair()
    supervisor, worker = await Channel.over(ours), Worker(Place(1, True, its.detach(), ()))
    attending = asyncio.create_task(worker.attend(lambda: ("healthy", None), lambda: b"own 1\n"))
    said = supervisor.messages()
    sign = {"status": "healthy", "fault": None}
    assert [await anext(said), await anext(said)] == [sign, sign]  # again and again: its loop turns
    said = (message async for message in said if message != sign)
    assert worker.overall(("healthy", None)) == ("starting", None)
    for others, expected in (
        ([HEALTHY, HEALTHY], ("healthy", None)),
        ([HEALTHY, STARTING], ("healthy", None)),
        ([HEALTHY, UNHEALTHY], ("unhealthy", "hanging")),
    ):
        supervisor.send({"workers": others, "complete": True})
        supervisor.send({"report": 7})
        assert await anext(said) == {"report": 7, "text": "own 1\n"}
        assert worker.workers == others
        assert worker.overall(("healthy", None)) == expected
        assert worker.overall(("draining", None)) == ("draining", None)
    asking = asyncio.create_task(worker.metrics())
    supervisor.send({"metrics": (await anext(said))["metrics"], "text": "all 2\n"})
    assert await asking == b"all 2\n"
    asking = asyncio.create_task(worker.metrics())
    await anext(said)
    supervisor.close()
    await attending
    with pytest.raises(ShuttingDownError):
        await asking
    with pytest.raises(ShuttingDownError):
        await worker.metrics()
    worker.close()
