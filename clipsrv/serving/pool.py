"""The threads that decode, shared fairly: a request of hundreds of images does not hold up a single one beside it.

Knows nothing of images: it runs functions. A slot is free again when its thread is, not when its caller gave up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from clipsrv.errors import ShuttingDownError
from clipsrv.serving.fairness import Turns

Result = TypeVar("Result")


class DecodePool:
    """`threads` threads, fed by turns of callers and of their requests. Used from one event loop."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        # One more than the threads for each, so that none is idle while the loop is busy.
        self._free = 2 * threads
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._running: dict[int, float] = {}
        self._stopped = False
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def lost(self, seconds: float) -> int:
        """Threads that have been at one piece of work for longer than `seconds`: hung, as far as anyone can tell."""
        limit = time.monotonic() - seconds
        return sum(started < limit for started in list(self._running.values()))

    async def run(self, work: Callable[[], Result], caller: Hashable = None, request: Hashable = None) -> Result:
        """The result of `work`, or what it raises. Cancelling leaves the queue; work begun goes on, its result lost.

        Raises ShuttingDownError once stopped.
        """
        if self._stopped:
            raise _stopping()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(turn, caller, request)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # let in and given up in the same moment
                self._leave()
            raise
        if self._stopped:  # let in, and stopped before its turn came
            raise _stopping()
        future = self._start(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if self._stopped:  # the pool gave it up, not the caller
                raise _stopping() from None
            raise

    def stop(self) -> None:
        """What has not begun fails with ShuttingDownError; does not wait for what is being done."""
        self._stopped = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(_stopping())
        self._waiting.clear()

    def _start(self, work: Callable[[], Result]) -> Future[Result]:
        loop = asyncio.get_running_loop()

        def timed() -> Result:
            thread = threading.get_ident()
            self._running[thread] = time.monotonic()
            try:
                return work()
            finally:
                del self._running[thread]

        def done(_: Future[Result]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._leave)

        future = self._executor.submit(timed)
        future.add_done_callback(done)
        return future

    def _admit(self) -> None:
        while self._free and self._waiting:
            turn = self._waiting.take()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    def _leave(self) -> None:
        self._free += 1
        self._admit()


def _stopping() -> ShuttingDownError:
    return ShuttingDownError("The server stopped before this was computed.")
