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

#: Seconds after which a measured release counts half.
_HALF_LIFE = 10.0


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
        self._what, self._retry_bounds, self._clock = what, retry_bounds, clock
        self._released, self._since = 0.0, clock()
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, count: int, holder: Hashable = None) -> Lease:
        """`count` slots until the lease is released. Raises OverloadedError if fewer are free; then none is taken."""
        lease = Lease(self, holder)
        lease.extend(count)
        return lease

    def retry_after(self) -> float:
        """Whole seconds until what is in work now should be done, by the throughput of late; within the bounds."""
        self._decay()
        low, high = self._retry_bounds
        per_second = self._released * math.log(2) / _HALF_LIFE
        return float(math.ceil(min(high, max(low, self.in_use / per_second if per_second else low))))

    async def wait_idle(self) -> None:
        """Returns as soon as no slot is in use."""
        await self._idle.wait()

    def check(self, count: int, holder: Hashable = None) -> None:
        """Raises OverloadedError if `count` slots are not free for `holder` now."""
        if self.in_use + count > self.capacity:
            self._refuse(f"The server is full ({self.in_use:,} of {self.capacity:,} {self._what} in use)")
        if self._held[holder] + count > self._per_holder:
            self._refuse(f"This caller uses {self._held[holder]:,} {self._what}, of {self._per_holder:,} for each")

    def _refuse(self, reason: str) -> NoReturn:
        retry_after = self.retry_after()
        raise OverloadedError(f"{reason}. Try again in {retry_after:.0f} s.", retry_after=retry_after)

    def _take(self, count: int, holder: Hashable) -> None:
        if not count:
            return
        self.check(count, holder)
        self.in_use += count
        self._held[holder] += count
        self._idle.clear()

    def _release(self, count: int, holder: Hashable) -> None:
        self._decay()
        self.in_use -= count
        self._held[holder] -= count
        if not self._held[holder]:
            del self._held[holder]
        self._released += count
        if not self.in_use:
            self._idle.set()

    def _decay(self) -> None:
        now = self._clock()
        self._released *= 0.5 ** ((now - self._since) / _HALF_LIFE)
        self._since = now


class Lease:
    """Slots held; a context manager that gives them back. Releasing twice gives back once."""

    def __init__(self, admission: Admission, holder: Hashable) -> None:
        self._admission, self._holder, self.count = admission, holder, 0

    def extend(self, count: int) -> None:
        """`count` slots more. Raises OverloadedError, and then keeps those it had."""
        self._admission._take(count, self._holder)
        self.count += count

    def release(self) -> None:
        self._admission._release(self.count, self._holder)
        self.count = 0

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
