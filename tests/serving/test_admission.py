"""Slots are taken all at once or not at all, and all come back."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clipsrv.errors import OverloadedError
from clipsrv.serving.admission import Admission, Lease, seconds_to_finish


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_request_that_does_not_fit_takes_nothing() -> None:
    admission = Admission(10, "slots")
    first = admission.take(7)
    with pytest.raises(OverloadedError, match=r"full \(7 of 10 slots in use\)"):
        admission.take(4)
    assert admission.in_use == 7
    with admission.take(3):
        assert admission.in_use == 10
    first.release()
    assert admission.in_use == 0


def test_one_holder_leaves_room_for_others() -> None:
    admission = Admission(10, "slots", per_holder=6)
    greedy = admission.take(6, "a")
    with pytest.raises(OverloadedError, match=r"This caller uses 6 slots, of 6 for each"):
        admission.take(1, "a")
    with pytest.raises(OverloadedError, match="server is full"):
        admission.take(5, "b")
    with admission.take(4, "b"):
        assert admission.in_use == 10
    greedy.release()
    admission.check(6, "a")
    with pytest.raises(OverloadedError):
        admission.check(7, "a")


def test_a_lease_that_cannot_grow_keeps_what_it_had() -> None:
    admission = Admission(10, "slots")
    lease = admission.take(6)
    lease.extend(2)
    with pytest.raises(OverloadedError):
        lease.extend(3)
    assert (lease.count, admission.in_use) == (8, 8)
    lease.release()
    lease.release()
    assert admission.in_use == 0


def test_nothing_can_always_be_taken() -> None:
    admission = Admission(1, "slots")
    with admission.take(1), admission.take(0) as nothing:
        assert nothing.count == 0


def test_an_error_inside_gives_the_slots_back() -> None:
    admission = Admission(3, "slots")
    with pytest.raises(ZeroDivisionError), admission.take(3):
        raise ZeroDivisionError
    assert admission.in_use == 0


@pytest.mark.parametrize(
    ("ahead", "done", "busy", "seconds"),
    [
        (100, 200, 20, 10),  # ten a second
        (100, 20, 20, 30),  # one a second: the most that is told
        (1, 200, 20, 1),  # the least
        (15, 200, 20, 2),  # whole seconds, upwards
        (0, 200, 20, 1),
        (256, 0, 0, 1),  # nothing known, nothing begun
        (256, 0, 7.5, 8),  # nothing done yet in so long
        (256, 0, 900, 30),
    ],
)
def test_the_time_to_finish_is_the_work_ahead_by_the_pace_of_the_work_done(
    ahead: float, done: float, busy: float, seconds: float
) -> None:
    assert seconds_to_finish(ahead, done, busy, (1, 30)) == seconds


def work(admission: Admission, clock: Clock, slots: int, seconds: float) -> None:
    """`slots` slots taken for so long."""
    with admission.take(slots):
        clock.now += seconds


def test_retry_after_follows_the_pace_of_late() -> None:
    clock = Clock()
    admission = Admission(1000, "slots", clock=clock)
    for _ in range(60):
        work(admission, clock, 10, 1)
    admission.take(100)
    assert admission.retry_after() == 10
    clock.now += 10  # busy for a half-life with nothing done: half as fast
    assert admission.retry_after() == pytest.approx(20, abs=1)


def test_an_idle_hour_and_a_first_second_do_not_make_a_fast_server_slow() -> None:
    clock = Clock()
    admission = Admission(1000, "slots", clock=clock)
    work(admission, clock, 1, 0.01)
    with admission.take(200):
        assert admission.retry_after() == 2
        clock.now += 2
    clock.now += 3600
    with admission.take(200):
        assert admission.retry_after() == 2


def test_looking_whether_there_is_room_leaves_no_trace() -> None:
    clock = Clock()
    admission = Admission(1000, "slots", clock=clock)
    for _ in range(10):
        work(admission, clock, 10, 1)
    admission.take(200)
    for _ in range(1000):
        admission.check(1, "somebody")
        clock.now += 0.0001
    assert admission.retry_after() == pytest.approx(20, abs=1)


def test_retry_after_stays_within_its_bounds() -> None:
    clock = Clock()
    admission = Admission(10**6, "slots", retry_bounds=(2, 30), clock=clock)
    assert admission.retry_after() == 2
    work(admission, clock, 1, 1)
    admission.take(10**6)
    assert admission.retry_after() == 30
    with pytest.raises(OverloadedError) as caught:
        admission.take(1)
    assert caught.value.retry_after == 30


async def test_who_waits_for_slots_gets_them_in_turn_as_they_come_free() -> None:
    admission, order = Admission(4, "slots"), list[str]()

    async def wait(name: str, count: int) -> Lease:
        lease = await admission.wait(count, name)
        order.append(name)
        return lease

    held = [await wait("first", 3), admission.take(1, "other")]
    waiting = [asyncio.create_task(wait(name, count)) for name, count in (("a", 2), ("b", 1), ("c", 2))]
    await asyncio.sleep(0)
    held[1].release()
    await asyncio.sleep(0.01)
    assert order == ["first", "b"], "what fits need not wait for what does not"
    held[0].release()
    await asyncio.sleep(0.01)
    assert order == ["first", "b", "a"]
    for task in waiting[:2]:
        (await task).release()
    (await waiting[2]).release()
    assert (order[-1], admission.in_use) == ("c", 0)


async def test_who_waits_within_its_share_passes_who_has_all_of_its_own() -> None:
    admission = Admission(10, "slots", per_holder=2)
    greedy = await admission.wait(2, "greedy")
    waiting = asyncio.create_task(admission.wait(1, "greedy"))
    await asyncio.sleep(0)
    (await asyncio.wait_for(admission.wait(2, "modest"), 1)).release()
    assert not waiting.done()
    with pytest.raises(OverloadedError, match="more than the 2 for each"):
        await admission.wait(3, "greedy")
    greedy.release()
    (await waiting).release()
    assert admission.in_use == 0


async def test_slots_given_and_given_up_in_the_same_moment_come_back() -> None:
    admission = Admission(1, "slots")
    held = admission.take(1)
    waiting = [asyncio.create_task(admission.wait(1)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()  # while it waits
    held.release()
    waiting[0].cancel()  # as it gets them
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    (await asyncio.wait_for(waiting[2], 1)).release()
    assert admission.in_use == 0


class Caller:
    """A holder that can be watched."""


async def test_a_holder_that_has_nothing_and_waits_for_nothing_is_forgotten() -> None:
    admission = Admission(2, "slots", per_holder=2)
    callers = [Caller(), Caller(), Caller()]
    first = admission.take(2, callers[0])
    waiting = [asyncio.create_task(admission.wait(1, caller)) for caller in callers[1:]]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    first.release()
    (await waiting[1]).release()
    watched = [weakref.ref(caller) for caller in callers]
    del callers, first, waiting
    await asyncio.sleep(0)  # the loop's own last look at the results
    gc.collect()
    assert [caller() for caller in watched] == [None] * 3


def test_a_lease_exchanged_holds_what_is_there_already_free_or_not() -> None:
    admission = Admission(4, "slots", per_holder=3)
    with admission.take(2, "a") as lease:
        lease.exchange(5)
        assert (lease.count, admission.in_use) == (5, 5)
        with pytest.raises(OverloadedError, match="full"):
            admission.take(1, "b")
        lease.exchange(1)
        assert (lease.count, admission.in_use) == (1, 1)
        with pytest.raises(OverloadedError, match="This caller uses 1"):
            admission.take(3, "a")
    assert admission.in_use == 0


async def test_idle_is_when_the_last_slot_comes_back() -> None:
    admission = Admission(5, "slots")
    await admission.wait_idle()
    leases = [admission.take(2), admission.take(1)]
    waiting = asyncio.create_task(admission.wait_idle())
    leases[0].release()
    await asyncio.sleep(0)
    assert not waiting.done()
    leases[1].release()
    await asyncio.wait_for(waiting, 1)


async def test_a_lease_grows_once_there_is_room_or_not_at_all() -> None:
    admission = Admission(5, "slots")
    lease, other = admission.take(2), admission.take(3)
    growing = asyncio.create_task(lease.grow(2))
    await asyncio.sleep(0)
    assert (growing.done(), lease.count) == (False, 2)
    other.shrink(1)
    await asyncio.sleep(0)
    assert not growing.done()
    other.shrink(1)
    await asyncio.wait_for(growing, 1)
    assert (lease.count, admission.in_use) == (4, 5)
    growing = asyncio.create_task(lease.grow(1))
    await asyncio.sleep(0)
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)
    other.release()
    assert (lease.count, admission.in_use) == (4, 4)


@given(st.integers(1, 50), st.lists(st.integers(0, 60)))
def test_what_is_refused_never_fitted_and_what_is_taken_did(capacity: int, counts: list[int]) -> None:
    admission, held = Admission(capacity, "slots"), 0
    for count in counts:
        try:
            admission.take(count)
        except OverloadedError:
            assert held + count > capacity
        else:
            held += count
        assert admission.in_use == held <= capacity


class Leases(RuleBasedStateMachine):
    """Any order of taking, growing and releasing (also twice) keeps the count of slots true."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(20, "slots")
        self.leases: list[Lease] = []

    @rule(count=st.integers(0, 25))
    def take(self, count: int) -> None:
        try:
            self.leases.append(self.admission.take(count))
        except OverloadedError:
            assert self.admission.in_use + count > 20

    @rule(which=st.integers(0, 99), count=st.integers(0, 25))
    def extend(self, which: int, count: int) -> None:
        if self.leases:
            lease = self.leases[which % len(self.leases)]
            try:
                lease.extend(count)
            except OverloadedError:
                assert self.admission.in_use + count > 20

    @rule(which=st.integers(0, 99), part=st.floats(0, 1))
    def split(self, which: int, part: float) -> None:
        if self.leases:
            lease = self.leases[which % len(self.leases)]
            before, count = lease.count, int(part * lease.count)
            self.leases.append(lease.split(count))
            assert (lease.count, self.leases[-1].count) == (before - count, count)

    @rule(which=st.integers(0, 99), part=st.floats(0, 1))
    def shrink(self, which: int, part: float) -> None:
        if self.leases:
            lease = self.leases[which % len(self.leases)]
            lease.shrink(int(part * lease.count))

    @rule(which=st.integers(0, 99))
    def release(self, which: int) -> None:
        if self.leases:
            self.leases[which % len(self.leases)].release()

    @invariant()
    def the_count_is_the_sum_of_the_leases(self) -> None:
        assert self.admission.in_use == sum(lease.count for lease in self.leases) <= 20


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
