"""What is loaded, by name: once however many ask, kept while lent, put away when idle or in the way, or replaced.

Knows nothing of models: it keeps whatever can be closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from clipsrv.errors import ShuttingDownError

logger = logging.getLogger(__name__)


class Closable(Protocol):
    """What stands on a shelf."""

    async def close(self) -> None:
        """Gives everything back; called once, when nobody has it any more."""


Thing = TypeVar("Thing", bound=Closable)


class Shelf(Generic[Thing]):
    """Used from one event loop. Whoever waits for a load may go: the load goes on for those who come."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[Thing]],
        capacity: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`load` makes the thing of a name; loads are made one after the other. At most `capacity` things are there at
        once, beside one that is about to replace another."""
        self._load, self._capacity, self._clock = load, capacity, clock
        self._places: dict[str, _Place[Thing]] = {}  # what the next one who asks gets
        self._all: set[_Place[Thing]] = set()  # also those on their way in or out
        self._one_load = asyncio.Lock()
        self._changed = asyncio.Event()  # set, and another in its place, whenever a load or a closing ends
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def get(self, name: str) -> Thing | None:
        """What stands under `name`, if it is loaded; it is lent to nobody by this."""
        place = self._places.get(name)
        return place.thing if place else None

    def names(self) -> list[str]:
        """Under which names something stands."""
        return [name for name, place in self._places.items() if place.thing is not None]

    def has(self, name: str) -> bool:
        """Whether it is loaded or being loaded."""
        return name in self._places

    def __iter__(self) -> Iterator[Thing]:
        """Everything loaded, in no order that matters, with what is to be put away once it is given back."""
        return iter([place.thing for place in self._all if place.thing is not None])

    async def lease(self, name: str) -> Loan[Thing]:
        """What stands under `name`, loaded if need be, kept until it is given back.

        Raises whatever loading raises, to all who wait for it; the next who asks has it tried anew. Raises
        ShuttingDownError once closed.
        """
        if self._closed:
            raise _stopping()
        if name not in self._places:
            self._places[name] = self._begin(name)
        return await self._lend(self._places[name])

    async def evict(self, name: str) -> None:
        """Whoever asks from now on has it loaded anew. Returns once what stood there was given back and closed."""
        place = self._places.get(name)
        if place is not None:
            self._retire(place)
            await self._until(lambda: place not in self._all)

    async def evict_idle(self, seconds: float) -> None:
        """Puts away what nobody has had for so long."""
        limit = self._clock() - seconds
        idle = [place for place in self._places.values() if place.thing and not place.loans and place.used <= limit]
        for place in idle:
            self._retire(place)
        await self._until(lambda: not any(place in self._all for place in idle))

    async def replace(self, name: str) -> None:
        """Loads `name` anew; then it stands in the place of the old one, which serves those who have it to the end.

        Raises whatever loading raises; then the old one stays.
        """
        if self._closed:
            raise _stopping()
        (await self._lend(self._begin(name, beside=True))).give_back()

    def stop(self) -> None:
        """Nothing is lent or loaded any more; who waits for a load gets ShuttingDownError."""
        self._closed = True
        for place in self._all:
            place.loading.cancel()

    async def close(self) -> None:
        """Stops. Returns once everything was given back and closed."""
        self.stop()
        for place in list(self._all):
            self._retire(place)
        await self._until(lambda: not self._all)

    def _begin(self, name: str, *, beside: bool = False) -> _Place[Thing]:
        place: _Place[Thing] = _Place(name)
        self._all.add(place)
        place.loading = asyncio.create_task(self._fill(place, beside=beside), name=f"load {name}")
        # Not in the task: one that is cancelled before it has begun runs nothing.
        place.loading.add_done_callback(lambda loading: self._filled(place, loading, beside=beside))
        return place

    async def _fill(self, place: _Place[Thing], *, beside: bool) -> None:
        try:
            async with self._one_load:
                await self._make_room(beside=beside)
                place.thing = await self._load(place.name)
        finally:
            del place  # an error holds the frames it came through, and the place holds the error

    def _filled(self, place: _Place[Thing], loading: asyncio.Task[None], *, beside: bool) -> None:
        if loading.cancelled() or loading.exception() is not None:
            self._forget(place)
            return
        place.used = self._clock()
        old = self._places.get(place.name)
        if beside and not place.retired:
            self._places[place.name] = place
            if old is not None:
                self._retire(old)
        self._put_away_if_done(place)
        self._tell()

    async def _lend(self, place: _Place[Thing]) -> Loan[Thing]:
        place.loans += 1
        try:
            await asyncio.shield(place.loading)
            assert place.thing is not None
            return Loan(place.thing, self, place)
        except BaseException as error:
            self._give_back(place)
            if isinstance(error, asyncio.CancelledError) and place.loading.cancelled() and self._closed:
                raise _stopping() from None
            raise
        finally:
            del place  # as above

    async def _make_room(self, *, beside: bool) -> None:
        """Puts away what was used longest ago, idle things first, until there is room for one more."""
        while self._capacity is not None:
            there = [place for place in self._all if place.thing is not None]
            if len(there) < self._capacity + beside:
                return
            if not any(place.retired for place in there):
                self._retire(min(there, key=lambda place: (place.loans > 0, place.used)))
            await self._changed.wait()

    def _retire(self, place: _Place[Thing]) -> None:
        if self._places.get(place.name) is place:
            del self._places[place.name]
        place.retired = True
        self._put_away_if_done(place)

    def _give_back(self, place: _Place[Thing]) -> None:
        place.loans -= 1
        place.used = self._clock()
        self._put_away_if_done(place)

    def _put_away_if_done(self, place: _Place[Thing]) -> None:
        if place.retired and not place.loans and place.thing is not None and not place.closing:
            place.closing = True
            task = asyncio.create_task(self._put_away(place, place.thing), name=f"close {place.name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _put_away(self, place: _Place[Thing], thing: Thing) -> None:
        try:
            await thing.close()
        except Exception:  # what cannot be closed must not keep its place for ever
            logger.exception("%s could not be closed", place.name)
        else:
            logger.log(logging.DEBUG if self._closed else logging.INFO, "%s is unloaded", place.name)
        self._forget(place)

    def _forget(self, place: _Place[Thing]) -> None:
        if self._places.get(place.name) is place:
            del self._places[place.name]
        self._all.discard(place)
        place.thing = None
        self._tell()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Loan(Generic[Thing]):
    """A thing in use, until it is given back. Giving back twice is giving back once."""

    def __init__(self, thing: Thing, shelf: Shelf[Thing], place: _Place[Thing]) -> None:
        self.thing, self._shelf, self._place = thing, shelf, place
        self._returned = False

    @property
    def is_wanted_back(self) -> bool:
        """It is to be put away once everyone has given it back: evicted, or replaced."""
        return self._place.retired

    def give_back(self) -> None:
        if not self._returned:
            self._returned = True
            self._shelf._give_back(self._place)

    def __enter__(self) -> Thing:
        return self.thing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()


class _Place(Generic[Thing]):
    """Where one thing stands, from the moment its load begins until it is closed."""

    loading: asyncio.Task[None]

    def __init__(self, name: str) -> None:
        self.name = name
        self.thing: Thing | None = None
        self.loans, self.used = 0, 0.0
        self.retired = self.closing = False


def _stopping() -> ShuttingDownError:
    return ShuttingDownError("The server is shutting down.")
