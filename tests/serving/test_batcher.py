"""Single items in, batches out: each gets its own result exactly once, whatever arrives, fails or goes away."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsrv.errors import InferenceFailedError, OutOfMemoryError, ShuttingDownError
from clipsrv.serving.batcher import Batcher, Completed, Entry, collect
from clipsrv.serving.fairness import Turns
from clipsrv.serving.observer import Observer


class Engine:
    """Doubles numbers, one batch at a time, when the gate is open; fails on the numbers told."""

    def __init__(self, *, bad: Callable[[Sequence[int]], Exception | None] = lambda items: None) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self._bad = bad

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        assert self.running == 0, "two batches at once"
        self.batches.append(list(items))
        self.running += 1
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if error := self._bad(items):
                raise error
            return [2 * item for item in items]
        finally:
            self.running -= 1


@asynccontextmanager
async def running(engine: Engine, limit: int) -> AsyncIterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(engine, limit)
    task = asyncio.create_task(batcher.run())
    yield batcher
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def submit_all(batcher: Batcher[int, int], items: Sequence[int], caller: Hashable = None) -> list[object]:
    done = await asyncio.gather(*(batcher.submit(item, caller) for item in items), return_exceptions=True)
    return [one.value if isinstance(one, Completed) else one for one in done]


async def turn(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


# --- the policy; whose turn it is, is tested in test_fairness.py ---


async def waiting(*numbers: int) -> tuple[Turns[Entry[int, int]], list[Entry[int, int]]]:
    loop = asyncio.get_running_loop()
    entries = [Entry[int, int](number, loop.create_future()) for number in numbers]
    turns: Turns[Entry[int, int]] = Turns()
    for entry in entries:
        turns.add(entry)
    return turns, entries


async def test_a_batch_takes_what_waits_up_to_the_limit() -> None:
    turns, entries = await waiting(*range(10))
    assert collect(turns, 7) == entries[:7]
    assert collect(turns, 7) == entries[7:]
    assert collect(turns, 7) == []


async def test_a_batch_takes_items_until_their_sizes_reach_the_limit() -> None:
    turns, entries = await waiting(4, 4, 90, 3, 3, 3, 3)
    assert collect(turns, 9, lambda number: number) == entries[:3]
    assert collect(turns, 9, lambda number: number) == entries[3:6]


async def test_what_was_given_up_is_passed_over_and_forgotten() -> None:
    turns, entries = await waiting(1, 2, 3)
    entries[0].future.cancel()
    entries[2].future.cancel()
    assert collect(turns, 8) == [entries[1]]
    assert not turns


# --- the loop ---


async def test_a_single_item_is_computed_at_once() -> None:
    engine = Engine()
    async with running(engine, 16) as batcher:
        began = time.monotonic()
        done = await batcher.submit(21)
        assert done.value == 42
        assert done.queued >= 0
        assert done.computed >= 0
        assert done.queued + done.computed <= time.monotonic() - began
    assert engine.batches == [[21]]


async def test_what_waits_while_the_engine_works_is_the_next_batch() -> None:
    engine = Engine()
    engine.gate.clear()
    async with running(engine, 16) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        await turn()
        rest = asyncio.create_task(submit_all(batcher, range(1, 11)))
        await turn()
        assert batcher.queued == 10
        assert batcher.busy_for > 0
        engine.gate.set()
        assert (await first).value == 0
        assert await rest == [2 * item for item in range(1, 11)]
        assert batcher.busy_for == 0
    assert list(map(len, engine.batches)) == [1, 10]
    assert batcher.last_success is not None


async def test_a_single_image_beside_a_request_of_hundreds_is_in_the_next_batch() -> None:
    engine = Engine()
    engine.gate.clear()
    async with running(engine, 8) as batcher:
        crowd = asyncio.create_task(submit_all(batcher, range(300), caller="crowd"))
        await turn()
        single = asyncio.create_task(batcher.submit(1000, "single"))
        await turn()
        engine.gate.set()
        await single
        assert 1000 in engine.batches[1]
        assert await crowd == [2 * item for item in range(300)]


async def test_an_item_given_up_in_the_queue_is_not_computed() -> None:
    engine = Engine()
    engine.gate.clear()
    async with running(engine, 1) as batcher:
        first, given_up, last = (asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3))
        await turn()
        given_up.cancel()
        engine.gate.set()
        assert [(await first).value, (await last).value] == [2, 6]
    assert engine.batches == [[1], [3]]


class Large:
    """An item whose memory can be watched."""


async def test_an_item_given_up_in_the_queue_keeps_no_memory_while_the_engine_works() -> None:
    go_on = asyncio.Event()

    async def process(items: Sequence[Large]) -> Sequence[int]:
        await go_on.wait()
        return [0] * len(items)

    batcher: Batcher[Large, int] = Batcher(process, 1)
    loop = asyncio.create_task(batcher.run())
    tasks = [asyncio.create_task(batcher.submit(Large())) for _ in range(2)]
    await turn()
    item = Large()
    watched, given_up = weakref.ref(item), asyncio.create_task(batcher.submit(item))
    del item
    await turn()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    del given_up
    gc.collect()
    assert watched() is None
    assert batcher.queued == 2
    go_on.set()
    await asyncio.gather(*tasks)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


class Told(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def computed(self, seconds: float, size: int) -> None:
        self.events.append(("computed", size))

    def failed(self, code: str) -> None:
        self.events.append(("failed", code))

    def abandoned(self, stage: str) -> None:
        self.events.append(("abandoned", stage))


async def test_the_observer_is_told_of_batches_failures_and_of_what_nobody_waits_for() -> None:
    engine, told = Engine(bad=fails_on(2)), Told()
    engine.gate.clear()
    batcher: Batcher[int, int] = Batcher(engine, 1, told)
    loop = asyncio.create_task(batcher.run())
    tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
    await turn()
    tasks[0].cancel()
    tasks[2].cancel()
    engine.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert told.events[:2] == [("abandoned", "compute"), ("abandoned", "queue")]
    assert told.events[2:] == [("computed", 1), ("failed", "inference_failed")]
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_an_item_given_up_while_computed_does_not_hurt_its_neighbours() -> None:
    engine = Engine()
    engine.gate.clear()
    async with running(engine, 4) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
        await turn()
        tasks[0].cancel()
        engine.gate.set()
        assert (await tasks[1]).value == 4


# --- failures ---


def fails_on(*culprits: int) -> Callable[[Sequence[int]], Exception | None]:
    return lambda items: RuntimeError("secret") if set(items) & set(culprits) else None


async def test_a_bad_item_fails_alone_and_says_nothing_of_the_inside() -> None:
    engine = Engine(bad=fails_on(5))
    async with running(engine, 16) as batcher:
        results = await submit_all(batcher, range(16))
    assert [result for result in results if not isinstance(result, Exception)] == [2 * n for n in range(16) if n != 5]
    assert isinstance(results[5], InferenceFailedError)
    assert "secret" not in str(results[5])
    assert batcher.max_batch_size == 16


async def test_failures_in_a_row_are_counted_until_one_succeeds() -> None:
    engine = Engine(bad=fails_on(1, 2))
    async with running(engine, 1) as batcher:
        await submit_all(batcher, [1, 2])
        assert batcher.failures_in_a_row == 2
        await batcher.submit(3)
        assert batcher.failures_in_a_row == 0


async def test_out_of_memory_halves_the_batch_size_for_good() -> None:
    engine = Engine(bad=lambda items: OutOfMemoryError("full") if len(items) > 3 else None)
    async with running(engine, 16) as batcher:
        assert await submit_all(batcher, range(16)) == [2 * item for item in range(16)]
        assert batcher.max_batch_size == 2
        assert await submit_all(batcher, range(16)) == [2 * item for item in range(16)]
    assert max(map(len, engine.batches[-8:])) == 2


async def test_out_of_memory_of_a_single_item_is_its_own() -> None:
    engine = Engine(bad=lambda items: OutOfMemoryError("full"))
    async with running(engine, 4) as batcher:
        results = await submit_all(batcher, [1, 2])
    assert [type(result) for result in results] == [OutOfMemoryError, OutOfMemoryError]
    assert batcher.max_batch_size == 1


@pytest.mark.parametrize(
    ("what", "lose"),
    [("head", lambda done: done[1:]), ("middle", lambda done: done[:1] + done[2:]), ("tail", lambda done: done[:-1])],
)
async def test_an_engine_that_loses_a_result_of_a_batch_gives_nobody_anothers(
    what: str, lose: Callable[[list[int]], list[int]]
) -> None:
    async def lossy(items: Sequence[int]) -> Sequence[int]:
        done = [2 * item for item in items]
        return lose(done) if len(items) >= 3 else done

    batcher: Batcher[int, int] = Batcher(lossy, 8)
    task = asyncio.create_task(batcher.run())
    assert await submit_all(batcher, range(8)) == [2 * item for item in range(8)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("results", [[], [1, 2]])
async def test_an_item_that_gives_no_result_or_two_fails_and_not_the_loop(results: list[int]) -> None:
    async def process(items: Sequence[int]) -> Sequence[int]:
        return results if items[0] == 1 else items

    batcher: Batcher[int, int] = Batcher(process, 1)
    task = asyncio.create_task(batcher.run())
    failed, sound = await submit_all(batcher, [1, 5])
    assert isinstance(failed, InferenceFailedError)
    assert sound == 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_neighbours_given_up_while_a_failed_batch_is_halved_are_not_computed_again() -> None:
    engine = Engine(bad=fails_on(1))
    engine.gate.clear()
    async with running(engine, 4) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3, 4)]
        await turn()
        for task in tasks[:2]:
            task.cancel()
        engine.gate.set()
        assert [(await task).value for task in tasks[2:]] == [6, 8]
    assert engine.batches == [[1, 2, 3, 4], [3, 4]]


async def test_an_item_given_up_while_it_fails_alone_is_let_go() -> None:
    engine = Engine(bad=fails_on(1))
    engine.gate.clear()
    async with running(engine, 4) as batcher:
        task = asyncio.create_task(batcher.submit(1))
        await turn()
        task.cancel()
        engine.gate.set()
        assert (await batcher.submit(2)).value == 4


async def test_stopping_fails_what_is_in_work_and_what_waits() -> None:
    engine = Engine()
    engine.gate.clear()
    async with running(engine, 2) as batcher:
        tasks = asyncio.create_task(submit_all(batcher, range(5)))
        await turn()
    assert {type(result) for result in await tasks} == {ShuttingDownError}
    assert batcher.queued == 0


async def test_what_comes_after_the_stop_is_refused_and_does_not_wait() -> None:
    batcher: Batcher[int, int] = Batcher(Engine(), 2)
    task = asyncio.create_task(batcher.run())
    await turn()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(batcher.submit(1), 1)


async def test_a_batcher_that_never_ran_can_be_stopped() -> None:
    batcher: Batcher[int, int] = Batcher(Engine(), 2)
    waiting = asyncio.create_task(batcher.submit(1))
    await turn()
    batcher.stop()
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(waiting, 1)
    assert batcher.queued == 0


async def test_a_batch_is_formed_when_the_turn_comes_from_all_that_has_come_by_then() -> None:
    engine, turns = Engine(), asyncio.Lock()

    @asynccontextmanager
    async def my_turn() -> AsyncIterator[None]:
        async with turns:
            yield

    batcher: Batcher[int, int] = Batcher(engine, 8, turn=my_turn)
    task = asyncio.create_task(batcher.run())
    async with turns:  # somebody else's
        first = asyncio.create_task(batcher.submit(1))
        await turn()
        rest = asyncio.create_task(submit_all(batcher, [2, 3]))
        await turn()
        assert engine.batches == []
    await asyncio.gather(first, rest)
    assert engine.batches == [[1, 2, 3]]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Panic(BaseException):
    """What native code can raise past every `except Exception`."""


async def test_what_ends_the_loop_fails_its_batch_and_the_rest_waits_for_the_next_run() -> None:
    async def process(items: Sequence[int]) -> Sequence[int]:
        if 0 in items:
            raise Panic
        return [2 * item for item in items]

    batcher: Batcher[int, int] = Batcher(process, 2)
    tasks = asyncio.create_task(submit_all(batcher, range(4)))
    await turn()
    with pytest.raises(Panic):
        await batcher.run()
    assert batcher.failures_in_a_row == 1
    again = asyncio.create_task(batcher.run())
    first, second, *rest = await tasks
    assert [type(first), type(second)] == [InferenceFailedError, InferenceFailedError]
    assert rest == [4, 6]
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


# --- any order of events ---

events = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 200)),
        st.tuples(st.sampled_from(["open", "close", "turn"]), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(events, st.integers(1, 6), st.sets(st.integers(0, 60), max_size=4), st.integers(2, 6))
async def test_every_submit_resolves_exactly_once_with_its_own_result(
    plan: list[tuple[str, int]], limit: int, culprits: set[int], memory: int
) -> None:
    def bad(items: Sequence[int]) -> Exception | None:
        if len(items) > memory:
            return OutOfMemoryError("full")
        return ValueError("culprit") if set(items) & culprits else None

    engine = Engine(bad=bad)
    tasks: list[asyncio.Task[Completed[int]]] = []
    async with running(engine, limit) as batcher:
        for event, number in plan:
            if event == "submit":
                tasks.append(asyncio.create_task(batcher.submit(len(tasks), f"caller {number}")))
            elif event == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif event == "open":
                engine.gate.set()
            elif event == "close":
                engine.gate.clear()
            else:
                await turn(number + 1)
        engine.gate.set()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert batcher.queued == 0
        assert batcher.busy_for == 0
    for number, result in enumerate(results):
        if isinstance(result, Completed):
            assert result.value == 2 * number
            assert number not in culprits
        else:
            assert isinstance(result, asyncio.CancelledError) or number in culprits
    assert all(len(batch) <= limit for batch in engine.batches)
    good = Counter(n for batch in engine.batches if not bad(batch) for n in batch)
    assert not good or max(good.values()) == 1, "computed twice"


@pytest.mark.parametrize("waiting_callers", [2, 5])
async def test_the_engine_is_never_idle_while_something_waits(waiting_callers: int) -> None:
    engine = Engine()
    async with running(engine, 4) as batcher:
        results = await asyncio.gather(
            *(submit_all(batcher, range(100 * n, 100 * n + 20), caller=n) for n in range(waiting_callers))
        )
    assert [value for result in results for value in result] == [
        2 * item for n in range(waiting_callers) for item in range(100 * n, 100 * n + 20)
    ]
    sizes = list(map(len, engine.batches))
    assert sum(sizes) == 20 * waiting_callers
    assert all(size == 4 for size in sizes[:-1])
