"""asyncio's debug mode notices who keeps the loop, and nobody else."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.debugging import no_callback_keeps_the_loop


async def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_a_callback_that_keeps_the_loop_is_noticed() -> None:
    with (
        pytest.raises(AssertionError, match=r"the loop was kept: 0\.\d+ s of CPU time in"),
        no_callback_keeps_the_loop(0.05),
    ):
        await asyncio.create_task(compute(0.06))


async def test_one_that_waits_is_not() -> None:
    with no_callback_keeps_the_loop(0.05):
        await asyncio.gather(compute(0.001), asyncio.to_thread(time.sleep, 0.1), asyncio.sleep(0.1))
