"""What the process has once: and no model is lost that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from clipsrv.errors import ModelCorruptError, ShuttingDownError
from clipsrv.models.model import Model
from clipsrv.serving.workshop import Workshop
from clipsrv.settings import ServingSettings
from tests.support.faulty import FaultyEncoder
from tests.support.model import make_model
from tests.support.serving import eventually


class Closing(FaultyEncoder):
    closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_model_that_comes_when_nobody_waits_for_it_is_closed() -> None:
    workshop, gate, begun = Workshop(ServingSettings()), threading.Event(), threading.Event()
    encoder = Closing()

    def load() -> Model:
        begun.set()
        gate.wait(60)
        return replace(make_model(), image_encoder=encoder)

    opening = asyncio.create_task(workshop.open(load))
    await asyncio.to_thread(begun.wait, 30)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not encoder.closed
    gate.set()
    await eventually(lambda: encoder.closed)
    workshop.stop()


async def test_a_model_given_up_in_the_moment_it_comes_is_closed() -> None:
    workshop, encoder = Workshop(ServingSettings()), Closing()
    came = threading.Event()

    def load() -> Model:
        came.set()
        return replace(make_model(), image_encoder=encoder)

    opening = asyncio.create_task(workshop.open(load))
    await asyncio.sleep(0)
    came.wait(30)  # on the loop: what the thread gave has not arrived here yet
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await eventually(lambda: encoder.closed)
    workshop.stop()


async def test_a_load_that_fails_when_nobody_waits_for_it_is_nobodys() -> None:
    workshop, gate, begun = Workshop(ServingSettings()), threading.Event(), threading.Event()

    def load() -> Model:
        begun.set()
        gate.wait(60)
        raise ModelCorruptError("broken")

    opening = asyncio.create_task(workshop.open(load))
    await asyncio.to_thread(begun.wait, 30)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    gate.set()
    with pytest.raises(ModelCorruptError):
        await workshop.open(load)
    workshop.stop()


async def test_giving_up_fails_what_waits_for_a_thread_and_what_is_in_one() -> None:
    workshop, gate = Workshop(ServingSettings(decode_threads=1)), threading.Event()
    tasks = [asyncio.create_task(workshop.decoding.run(lambda: gate.wait(60))) for _ in range(5)]
    tasks.append(asyncio.create_task(workshop.tokenizing.run(lambda: gate.wait(60))))
    await asyncio.sleep(0.05)
    workshop.give_up()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert {type(outcome) for outcome in outcomes} == {ShuttingDownError}
    gate.set()
    workshop.stop()
