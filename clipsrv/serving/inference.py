"""The thread that computes, shared by engines: one batch at a time, and the next turn is that of who has used least.

Turns counted in batches would give a model whose batches take seconds nearly all the time of one that takes
milliseconds. Knows nothing of models: it runs functions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")


class InferenceThread:
    """Used from one event loop. Two inferences at once would only share the same cores."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._executor.submit(lambda: None)  # the thread starts now: later there may be no memory for it
        self._waiting: list[_Claim] = []
        self._busy_since: float | None = None
        self._now = 0.0  # how far the turns have come: the time that whoever has the turn had used before

    @property
    def busy_for(self) -> float:
        """Seconds the turn in progress has taken so far; 0 when there is none."""
        return 0.0 if self._busy_since is None else self.clock() - self._busy_since

    def share(self) -> Share:
        """A new claim to a fair part of the thread's time."""
        return Share(self)

    def stop(self) -> None:
        """What has not begun never will; does not wait for what is being done."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _enter(self, share: Share) -> None:
        # Who was away does not save up time: it comes back as if it had used as much as who has the turn.
        claim = _Claim(share, self._now, asyncio.get_running_loop().create_future())
        self._waiting.append(claim)
        self._pass_on()
        try:
            await claim.turn
        except asyncio.CancelledError:
            if claim in self._waiting:
                self._waiting.remove(claim)
            else:  # it came in the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        self._busy_since = None
        # Not at once: who leaves and has more to do asks again first, and may be next if it has used less.
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        if self._busy_since is None and self._waiting:
            claim = min(self._waiting, key=_Claim.used)
            self._waiting.remove(claim)
            self._now = claim.share.used = claim.used()
            self._busy_since = self.clock()
            claim.turn.set_result(None)


class Share:
    """One engine's part of the thread. `used` are the seconds it has had, and those it let pass while away."""

    def __init__(self, thread: InferenceThread) -> None:
        self.used = 0.0
        self._thread = thread

    @property
    def hung_for(self) -> float:
        """Seconds that the thread, on whose behalf ever, has been at the turn in progress."""
        return self._thread.busy_for

    def turn(self) -> Turn:
        """A context within which nobody else's work runs."""
        return Turn(self, self._thread)

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, or what it raises. Cancelling gives it up; work begun goes on in the thread."""
        return await self._thread._run(work)


class Turn:
    """One turn; its time counts as used. Not a generator: errors through one hold frames that hold them."""

    def __init__(self, share: Share, thread: InferenceThread) -> None:
        self._share, self._thread, self._began = share, thread, 0.0

    async def __aenter__(self) -> None:
        await self._thread._enter(self._share)
        self._began = self._thread.clock()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._share.used += self._thread.clock() - self._began
        self._thread._leave()


class _Claim(NamedTuple):
    share: Share
    arrived: float
    turn: asyncio.Future[None]

    def used(self) -> float:
        return max(self.arrived, self.share.used)
