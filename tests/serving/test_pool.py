"""The threads that decode: all of them at work, shared by turns, and a slot is free when its thread is."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest

from clipsrv.errors import ShuttingDownError
from clipsrv.serving.pool import FairPool
from tests.support.serving import eventually


async def test_results_and_errors_are_the_works_own() -> None:
    pool = FairPool(2, "decode")
    assert await pool.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert sorted(await asyncio.gather(*(pool.run(partial(int, n)) for n in range(50)))) == list(range(50))
    pool.stop()


async def test_all_threads_work_at_once() -> None:
    pool, together = FairPool(3, "decode"), threading.Barrier(3)
    await asyncio.gather(*(pool.run(lambda: together.wait(10)) for _ in range(3)))
    pool.stop()


async def test_a_single_image_does_not_wait_for_a_crowd() -> None:
    pool, order = FairPool(1, "decode"), list[str]()
    gate = threading.Event()
    first = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await asyncio.sleep(0)
    crowd = [asyncio.create_task(pool.run(lambda: order.append("crowd"), "crowd")) for _ in range(20)]
    await asyncio.sleep(0)
    single = asyncio.create_task(pool.run(lambda: order.append("single"), "single"))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *crowd, single)
    assert order.index("single") <= 3
    pool.stop()


async def test_what_is_given_up_in_the_queue_never_runs() -> None:
    pool, gate, ran = FairPool(1, "decode"), threading.Event(), list[int]()
    blocking = [asyncio.create_task(pool.run(lambda: gate.wait(10))) for _ in range(2)]
    waiting = [asyncio.create_task(pool.run(partial(ran.append, n))) for n in range(4)]
    await asyncio.sleep(0.05)
    for task in waiting[:3]:
        task.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*blocking, *waiting, return_exceptions=True)
    assert ran == [3]
    assert await pool.run(lambda: "still works") == "still works"
    pool.stop()


async def test_threads_at_one_work_for_too_long_are_lost() -> None:
    pool, gate = FairPool(2, "decode"), threading.Event()
    task = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await eventually(lambda: pool.lost(0.05) > 0)
    assert pool.lost(0.05) == 1
    assert pool.lost(60) == 0
    gate.set()
    await task
    assert pool.lost(0) == 0
    pool.stop()


async def test_a_stopped_pool_refuses_and_lets_nobody_wait_not_even_for_what_is_in_work() -> None:
    pool, gate = FairPool(1, "decode"), threading.Event()
    tasks = [asyncio.create_task(pool.run(lambda: gate.wait(10))) for _ in range(5)]
    await asyncio.sleep(0.05)
    pool.stop()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert {type(outcome) for outcome in outcomes} == {ShuttingDownError}
    gate.set()
    with pytest.raises(ShuttingDownError):
        await pool.run(lambda: 1)


async def test_who_gives_up_as_the_pool_stops_has_given_up() -> None:
    pool, gate = FairPool(1, "decode"), threading.Event()
    task = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await asyncio.sleep(0.05)
    task.cancel()
    pool.stop()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()


async def test_whatever_work_raises_is_told() -> None:
    pool = FairPool(1, "decode")
    for kind, told in ((StopIteration, RuntimeError), (GeneratorExit, GeneratorExit)):

        def work(kind: type[BaseException] = kind) -> None:
            raise kind

        with pytest.raises(told):
            await asyncio.wait_for(pool.run(work), 10)
    assert await pool.run(lambda: 1) == 1
    pool.stop()


async def test_work_let_in_and_stopped_in_the_same_moment_is_refused_like_the_rest() -> None:
    pool, gate = FairPool(1, "decode"), threading.Event()
    blocking = [asyncio.create_task(pool.run(lambda: gate.wait(10))) for _ in range(2)]
    waiting = asyncio.create_task(pool.run(lambda: 1))
    await asyncio.sleep(0)
    gate.set()
    time.sleep(0.05)  # noqa: ASYNC251 - the threads are done, and the loop has not heard of it yet
    asyncio.get_running_loop().call_soon(pool.stop)
    with pytest.raises(ShuttingDownError):
        await waiting
    await asyncio.gather(*blocking, return_exceptions=True)
