"""One thread for all engines: one at a time, and who takes long leaves as much time to the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from clipsrv.serving.inference import InferenceThread, Share


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def keep_computing(share: Share, seconds: float, log: list[str], name: str, clock: Clock, until: float) -> None:
    while clock.now < until:
        async with share.turn():
            await asyncio.sleep(0)
            clock.now += seconds
            log.append(name)


async def computing(work: dict[str, float], until: float, *, shared: bool = False) -> list[str]:
    """The order of turns of engines whose batches take so many seconds, always with more to do."""
    clock = Clock()
    thread, log = InferenceThread(clock), list[str]()
    one = thread.share()
    async with asyncio.TaskGroup() as group:
        for name, seconds in work.items():
            share = one if shared else thread.share()
            group.create_task(keep_computing(share, seconds, log, name, clock, until))
    thread.stop()
    return log


async def test_a_slow_engine_gets_no_more_time_than_a_fast_one() -> None:
    log = await computing({"slow": 3.0, "fast": 0.01}, 60)
    assert 9 <= log.count("slow") <= 11
    assert 2700 <= log.count("fast") <= 3300
    first, second = [index for index, name in enumerate(log) if name == "slow"][1:3]
    assert second - first > 250, "the fast one had its three seconds between two turns of the slow one"


async def test_equal_engines_take_turns() -> None:
    log = await computing({"a": 1.0, "b": 1.0, "c": 1.0}, 30)
    assert "".join(log).startswith("abcabcabc")


async def test_the_towers_of_one_engine_take_turns_within_its_share() -> None:
    log = await computing({"images": 1.0, "texts": 0.1}, 30, shared=True)
    assert abs(log.count("images") - log.count("texts")) <= 1


async def test_who_was_away_does_not_save_up_time() -> None:
    clock = Clock()
    thread, log = InferenceThread(clock), list[str]()
    away, busy = thread.share(), thread.share()
    await keep_computing(busy, 1.0, log, "busy", clock, 100)
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_computing(busy, 1.0, log, "busy", clock, 120))
        group.create_task(keep_computing(away, 1.0, log, "back", clock, 120))
    assert 8 <= log.count("back") <= 12
    thread.stop()


async def test_work_runs_in_one_thread_and_what_it_raises_is_its_own() -> None:
    thread = InferenceThread()
    share = thread.share()
    async with share.turn():
        assert await share.run(lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await share.run(lambda: 1 // 0)
    thread.stop()


async def test_a_turn_given_up_while_it_is_waited_for_or_as_it_comes_is_passed_on() -> None:
    thread = InferenceThread()
    entered = list[str]()

    async def enter(name: str) -> None:
        async with thread.share().turn():
            entered.append(name)

    async with thread.share().turn():
        waiting = {name: asyncio.create_task(enter(name)) for name in "abc"}
        await asyncio.sleep(0)
        waiting["b"].cancel()
        await asyncio.sleep(0)
    waiting["a"].cancel()  # its turn has come, and it does not know yet
    for task in waiting.values():
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 1)
    assert entered == ["c"]
    assert thread.busy_for == 0
    thread.stop()


async def test_the_time_of_the_turn_in_progress_is_told_to_every_engine() -> None:
    clock = Clock()
    thread = InferenceThread(clock)
    other = thread.share()
    async with thread.share().turn():
        clock.now = 5
        assert other.hung_for == thread.busy_for == 5
    assert other.hung_for == 0
    thread.stop()
