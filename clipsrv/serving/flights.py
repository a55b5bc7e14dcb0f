"""Work that several ask for at once, done once: whoever comes while it is under way gets what comes of it.

Knows nothing of images and texts: it runs functions. Nobody waits in another caller's turn: the first of each caller
begins the work in that caller's own, and whichever is done first is everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from copy import copy
from typing import Generic, NamedTuple, TypeVar

from clipsrv.errors import ClipsrvError

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """Used from one event loop. The work goes on for as long as anyone waits for it, whoever asked first."""

    def __init__(self) -> None:
        self._flights: dict[bytes, dict[Hashable, _Flight[Result]]] = {}

    def has(self, key: bytes, caller: Hashable) -> bool:
        """Whether something is under way that `join` would join."""
        return caller in self._flights.get(key, ())

    def join(self, key: bytes, caller: Hashable) -> Awaitable[Result] | None:
        """As `run`, of what is under way if something is. To be awaited at once."""
        flight = self._flights.get(key, {}).get(caller)
        return None if flight is None else self._wait(key, caller, flight)

    async def run(self, key: bytes, caller: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        """What `work` gives, or what it raises: each that waits for it an error of its own.

        Cancelling the call ends the work if nobody else of this caller waits for it.
        """
        under_way = self.join(key, caller) or self._wait(key, caller, self._begin(key, caller, work))
        del work  # the flight has it for as long as it needs it
        return await under_way

    async def _wait(self, key: bytes, caller: Hashable, flight: _Flight[Result]) -> Result:
        flight.waiting += 1
        try:
            landed = await asyncio.shield(flight.landed)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.landed.done():
                self._forget(key, caller, flight)
                flight.task.cancel()
            del flight  # an error holds the frames it came through: they must not hold it in turn
        if landed.error is None:
            return landed.value
        problems = [copy(landed.error) if isinstance(landed.error, ClipsrvError) else landed.error]
        del landed
        raise problems.pop()

    def _begin(self, key: bytes, caller: Hashable, work: Callable[[], Awaitable[Result]]) -> _Flight[Result]:
        task = asyncio.create_task(_attempt(work))
        flight = self._flights.setdefault(key, {})[caller] = _Flight(task)
        # Not in the task: one that is cancelled before it has begun runs nothing.
        task.add_done_callback(lambda task: self._land(key, caller, flight))
        return flight

    def _land(self, key: bytes, caller: Hashable, flight: _Flight[Result]) -> None:
        self._forget(key, caller, flight)
        if flight.task.cancelled():
            flight.landed.cancel()
            return
        landed = flight.task.result()
        flight.land(landed)
        if landed.error is None:
            for other in self._flights.pop(key, {}).values():
                other.land(landed)
                other.task.cancel()

    def _forget(self, key: bytes, caller: Hashable, flight: _Flight[Result]) -> None:
        of_key = self._flights.get(key, {})
        if of_key.get(caller) is flight:
            del of_key[caller]
            if not of_key:
                del self._flights[key]


class _Landed(NamedTuple, Generic[Result]):
    """`value`, if `error` is None."""

    value: Result
    error: Exception | None


class _Flight(Generic[Result]):
    """One caller's work under way, and how many are `waiting` for it."""

    def __init__(self, task: asyncio.Task[_Landed[Result]]) -> None:
        self.task, self.waiting = task, 0
        self.landed: asyncio.Future[_Landed[Result]] = asyncio.get_running_loop().create_future()

    def land(self, landed: _Landed[Result]) -> None:
        if not self.landed.done():
            self.landed.set_result(landed)


async def _attempt(work: Callable[[], Awaitable[Result]]) -> _Landed[Result]:
    try:
        return _Landed(await work(), None)
    except ClipsrvError as error:
        return _Landed(None, error.let_go())  # type: ignore[arg-type]  # no value: there is an error
    except Exception as error:  # noqa: BLE001 - raised again where it is waited for
        return _Landed(None, error)  # type: ignore[arg-type]
