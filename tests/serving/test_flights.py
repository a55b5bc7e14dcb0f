"""Work that several ask for at once: done once for each caller at most, and nobody's going or failing is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from random import Random

import pytest

from clipsrv.errors import ImageError, InferenceFailedError
from clipsrv.serving.flights import Flights

KEY = b"key"


class Work:
    """Counts how often it is begun and ended; lands when it is told to."""

    def __init__(self, value: str = "value") -> None:
        self.begun = self.cancelled = 0
        self.value = value
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.value


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_many_ask_for_at_once_is_done_once() -> None:
    flights, work = Flights[str](), Work()
    asking = [asyncio.create_task(flights.run(KEY, "caller", work)) for _ in range(10)]
    other = asyncio.create_task(flights.run(b"other", "caller", work))
    await settle()
    assert work.begun == 2
    assert flights.has(KEY, "caller")
    assert not flights.has(KEY, "stranger")
    work.may_end.set()
    assert await asyncio.gather(*asking, other) == ["value"] * 11
    assert not flights.has(KEY, "caller")
    assert await flights.run(KEY, "caller", work) == "value", "later it is done anew"
    assert work.begun == 3


async def test_who_asked_first_may_go_and_the_others_get_it() -> None:
    flights, work = Flights[str](), Work()
    first, second = (asyncio.create_task(flights.run(KEY, "caller", work)) for _ in range(2))
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.may_end.set()
    assert await second == "value"
    assert (work.begun, work.cancelled) == (1, 0)


async def test_when_nobody_waits_any_more_the_work_ends_and_who_comes_then_begins_anew() -> None:
    flights, work, anew = Flights[str](), Work(), Work("anew")
    asking = [asyncio.create_task(flights.run(KEY, "caller", work)) for _ in range(3)]
    await settle()
    for one in asking:
        one.cancel()
    later = asyncio.create_task(flights.run(KEY, "caller", anew))
    await asyncio.wait(asking)
    await settle()
    assert (work.begun, work.cancelled) == (1, 1)
    anew.may_end.set()
    assert await later == "anew"


async def test_who_goes_before_the_work_has_begun_leaves_nothing() -> None:
    flights, work = Flights[str](), Work()
    asking = asyncio.create_task(flights.run(KEY, "caller", work))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await settle()
    assert work.begun <= 1
    assert not flights._flights


async def test_a_failure_is_told_to_all_who_wait_each_by_an_error_of_its_own_and_not_kept() -> None:
    flights, work = Flights[str](), Work()
    work.error = ImageError("bad", limit=3)
    asking = [asyncio.create_task(flights.run(KEY, "caller", work)) for _ in range(3)]
    work.may_end.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, ImageError)
        assert (error.message, error.details, str(error)) == ("bad", {"limit": 3}, "bad")
    work.error = None
    assert await flights.run(KEY, "caller", work) == "value"


async def test_what_nobody_foresaw_reaches_all_with_the_lines_it_came_from() -> None:
    flights, work = Flights[str](), Work()
    work.error = LookupError("bug")
    work.may_end.set()
    for error in await asyncio.gather(*(flights.run(KEY, None, work) for _ in range(2)), return_exceptions=True):
        assert isinstance(error, LookupError)
        names = []
        trace = error.__traceback__
        while trace:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert "__call__" in names


async def test_each_caller_begins_in_its_own_turn_and_the_first_that_is_done_is_everybodys() -> None:
    flights, slow, quick = Flights[str](), Work("slow"), Work("quick")
    flooding = [asyncio.create_task(flights.run(KEY, "flooder", slow)) for _ in range(2)]
    await settle()
    quiet = asyncio.create_task(flights.run(KEY, "quiet", quick))
    await settle()
    assert (slow.begun, quick.begun) == (1, 1)
    quick.may_end.set()
    assert await quiet == "quick"
    assert await asyncio.gather(*flooding) == ["quick", "quick"]
    await settle()
    assert slow.cancelled == 1
    assert not flights._flights


async def test_one_callers_failure_is_not_anothers() -> None:
    flights, failing, good = Flights[str](), Work(), Work("good")
    failing.error = InferenceFailedError("no")
    first = asyncio.create_task(flights.run(KEY, "first", failing))
    second = asyncio.create_task(flights.run(KEY, "second", good))
    failing.may_end.set()
    with pytest.raises(InferenceFailedError):
        await first
    good.may_end.set()
    assert await second == "good"


async def test_whoever_comes_goes_or_fails_everyone_else_gets_one_answer() -> None:
    random = Random(5)
    for _ in range(30):
        flights = Flights[str]()

        async def ask(number: int, caller: Hashable, flights: Flights[str] = flights) -> str:
            async def work() -> str:
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(0)
                if random.random() < 0.3:
                    raise InferenceFailedError("no")
                return "value"

            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            return await flights.run(bytes([number % 3]), caller, work)

        tasks = [asyncio.create_task(ask(number, number % 2)) for number in range(12)]
        for task in random.sample(tasks, 4):
            await asyncio.sleep(0)
            task.cancel()
        async with asyncio.timeout(30):
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert outcome == "value" or isinstance(outcome, InferenceFailedError | asyncio.CancelledError)
        await settle()
        assert not flights._flights
