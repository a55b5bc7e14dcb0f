"""Threads shared fairly: a request of hundreds of images does not hold up a single one beside it.

Knows nothing of images: it runs functions. A thread is free again when it is, not when its caller gave up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from clipsrv.errors import ShuttingDownError
from clipsrv.machine import give_way
from clipsrv.serving.fairness import Turns

Result = TypeVar("Result")
_Errand = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class FairPool:
    """`threads` threads, fed by turns of callers and of their requests. Used from one event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self.threads = threads
        # One more than the threads for each, so that none is idle while the loop is busy.
        self._free = 2 * threads
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._begun: set[asyncio.Future[Any]] = set()
        self._running: dict[int, float] = {}
        self._stopped = False
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=give_way)
        together = threading.Barrier(threads)
        for _ in range(threads):  # all are started now: later there may be no memory for one
            self._executor.submit(together.wait)

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
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
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
        done: asyncio.Future[Result] = loop.create_future()
        self._begun.add(done)
        self._executor.submit(self._in_thread, [(work, done, loop)])
        try:
            return await done
        finally:
            del done  # as in the thread

    def stop(self) -> None:
        """Whatever waits or is being done fails with ShuttingDownError; the threads are left to what they do."""
        self._stopped = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        for done in self._begun:
            if not done.done():
                done.set_exception(_stopping())
        self._waiting.clear()
        self._begun.clear()

    def _in_thread(self, box: list[_Errand]) -> None:
        # An error holds the frames it came through and those below them: none may hold the future that holds it.
        work, done, loop = box.pop()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._end, done, self._attempt(work))
        del done

    def _attempt(self, work: Callable[[], Result]) -> tuple[Result | None, BaseException | None]:
        """What `work` gives, or what it raises: the result is the former if the latter is None."""
        thread = threading.get_ident()
        self._running[thread] = time.monotonic()
        try:
            return work(), None
        except StopIteration as error:  # no future takes it
            return None, RuntimeError(repr(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to whoever asked for the work
            return None, error
        finally:
            del self._running[thread]

    def _end(self, done: asyncio.Future[Any], outcome: tuple[Any, BaseException | None]) -> None:
        self._begun.discard(done)
        value, error = outcome
        if done.done():
            pass  # given up meanwhile
        elif error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
        self._leave()

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
