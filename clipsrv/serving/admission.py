"""A fixed number of slots, taken all at once or not at all. Refusing early is what keeps memory bounded.

Knows nothing of what a slot stands for: images in work, or bytes of bodies in flight.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import NoReturn

from clipsrv.errors import OverloadedError

#: Seconds of work after which what was measured counts half.
_HALF_LIFE = 10.0


def seconds_to_finish(ahead: float, done: float, busy: float, bounds: tuple[float, float]) -> float:
    """Whole seconds, within `bounds`, until `ahead` slots are done, when the last `done` of them took `busy` seconds.

    Where none is done yet, the first will take at least as long again as it has taken so far.
    """
    low, high = bounds
    return float(math.ceil(min(high, max(low, ahead * busy / done if done else busy))))


class Admission:
    """`capacity` slots. Not thread-safe: used from the event loop."""

    def __init__(
        self,
        capacity: int,
        what: str,
        *,
        per_holder: int | None = None,
        retry_bounds: tuple[float, float] = (1, 30),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` names the slots in messages; one holder may have `per_holder` of them, so that a caller who floods
        leaves room for others; `retry_bounds` are the least and most seconds to tell a caller."""
        self.capacity, self.in_use = capacity, 0
        self._per_holder = capacity if per_holder is None else per_holder
        self._held: Counter[Hashable] = Counter()
        self._waiting: list[tuple[Lease, int, asyncio.Future[None]]] = []
        self._what, self._retry_bounds, self._clock = what, retry_bounds, clock
        # Both fade alike, and only while there is work: their ratio is the pace of late, whatever pauses there were.
        self._done, self._busy, self._since = 0.0, 0.0, clock()
        self._idle, self._taken = asyncio.Event(), asyncio.Event()
        self._idle.set()

    def take(self, count: int, holder: Hashable = None) -> Lease:
        """`count` slots until the lease is released. Raises OverloadedError if fewer are free; then none is taken."""
        lease = Lease(self, holder)
        lease.extend(count)
        return lease

    async def wait(self, count: int, holder: Hashable = None) -> Lease:
        """As `take`, but waits until they are free: first come, first served, past those whose holder has its share.

        Raises OverloadedError for more than one holder may ever have.
        """
        if count > self._per_holder:
            self._refuse(f"{count:,} {self._what} are more than the {self._per_holder:,} for each caller")
        if self._fits(count, holder):
            return self.take(count, holder)
        lease, turn = Lease(self, holder), asyncio.get_running_loop().create_future()
        self._waiting.append((lease, count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting = [one for one in self._waiting if one[0] is not lease]
            lease.release()  # given and given up in the same moment
            raise
        return lease

    def retry_after(self) -> float:
        """Whole seconds until what is in work now should be done, by the pace of late; within the bounds."""
        self._measure()
        return seconds_to_finish(self.in_use, self._done, self._busy, self._retry_bounds)

    async def wait_idle(self) -> None:
        """Returns as soon as no slot is in use."""
        await self._idle.wait()

    async def wait_taken(self) -> None:
        """Returns as soon as a slot is in use, however short."""
        await self._taken.wait()

    def check(self, count: int, holder: Hashable = None) -> None:
        """Raises OverloadedError if `count` slots are not free for `holder` now. Leaves no trace."""
        if self.in_use + count > self.capacity:
            self._refuse(f"The server is full ({self.in_use:,} of {self.capacity:,} {self._what} in use)")
        if self._held[holder] + count > self._per_holder:
            self._refuse(f"This caller uses {self._held[holder]:,} {self._what}, of {self._per_holder:,} for each")

    def _refuse(self, reason: str) -> NoReturn:
        retry_after = self.retry_after()
        raise OverloadedError(f"{reason}. Try again in {retry_after:.0f} s.", retry_after=retry_after)

    def _fits(self, count: int, holder: Hashable) -> bool:
        return self.in_use + count <= self.capacity and self._held[holder] + count <= self._per_holder

    def _take(self, count: int, holder: Hashable) -> None:
        if not count:
            return
        self.check(count, holder)
        self._hold(count, holder)

    def _hold(self, count: int, holder: Hashable) -> None:
        self._measure()
        self.in_use += count
        self._held[holder] += count
        self._idle.clear()
        self._taken.set()

    def _release(self, count: int, holder: Hashable) -> None:
        if not count:
            return
        self._measure()
        self.in_use -= count
        self._held[holder] -= count
        if not self._held[holder]:
            del self._held[holder]
        self._done += count
        self._wake()
        if not self.in_use:
            self._idle.set()
            self._taken.clear()

    def _wake(self) -> None:
        still = []
        for lease, count, turn in self._waiting:
            if not turn.done() and self._fits(count, lease.holder):
                lease.extend(count)
                turn.set_result(None)
            else:
                still.append((lease, count, turn))
        self._waiting = still

    def _measure(self) -> None:
        """Lets the past fade by the work since the last look."""
        now = self._clock()
        if self.in_use:
            fade = 0.5 ** ((now - self._since) / _HALF_LIFE)
            self._done *= fade
            self._busy = self._busy * fade + (1 - fade) * _HALF_LIFE / math.log(2)
        self._since = now


class Lease:
    """Slots held; a context manager that gives them back. Releasing twice gives back once."""

    def __init__(self, admission: Admission, holder: Hashable) -> None:
        self._admission, self.holder, self.count = admission, holder, 0

    def extend(self, count: int) -> None:
        """`count` slots more. Raises OverloadedError, and then keeps those it had."""
        self._admission._take(count, self.holder)
        self.count += count

    async def grow(self, count: int) -> None:
        """As `extend`, but waits until they are free."""
        self._merge(await self._admission.wait(count, self.holder))

    def shrink(self, count: int) -> None:
        """Gives back `count` of them."""
        self.split(count).release()

    def split(self, count: int) -> Lease:
        """Another lease that has `count` of them."""
        other = Lease(self._admission, self.holder)
        other.count, self.count = count, self.count - count
        return other

    def release(self) -> None:
        count, self.count = self.count, 0
        self._admission._release(count, self.holder)

    def exchange(self, count: int) -> None:
        """Gives all slots back and holds `count` instead, free or not: for what is there already."""
        self.release()
        self._admission._hold(count, self.holder)
        self.count = count

    def _merge(self, other: Lease) -> None:
        self.count, other.count = self.count + other.count, 0

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
