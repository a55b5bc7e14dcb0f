"""Single items in, batches out: a batch is whatever waits when the engine is free, never later.

asyncio only: knows nothing of numpy, images or HTTP. Every submitted item gets its own result or error, exactly once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from clipsrv.errors import ClipsrvError, InferenceFailedError, OutOfMemoryError, ShuttingDownError
from clipsrv.serving.fairness import Turns
from clipsrv.serving.observer import Observer

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Completed(NamedTuple, Generic[Result]):
    """One result, with the seconds its item waited and the seconds its batch was computed."""

    value: Result
    queued: float
    computed: float


@dataclass(eq=False)
class Entry(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Completed[Result]]
    submitted: float = field(default_factory=time.monotonic)


def collect(
    waiting: Turns[Entry[Item, Result]], limit: int, size: Callable[[Item], int] = lambda item: 1
) -> list[Entry[Item, Result]]:
    """Takes entries by turns until they have `limit` in `size`, passing over those given up meanwhile.

    The last may pass the limit. The turn goes on where the last batch left it, so a single image beside a request of
    hundreds is in the next batch.
    """
    batch: list[Entry[Item, Result]] = []
    taken = 0
    while waiting and taken < limit:
        entry = waiting.take()
        if not entry.future.done():
            batch.append(entry)
            taken += size(entry.item)
    return batch


class Batcher(Generic[Item, Result]):
    """Feeds `process` with batches of at most `max_batch_size`, one batch at a time. An item counts as its `size`.

    `process` takes the items of a batch and gives as many results in the same order. When it raises or gives another
    number, the batch is halved until the culprit stands alone, so a bad item fails by itself; out of memory also halves
    `max_batch_size` for good.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        max_batch_size: int,
        observer: Observer | None = None,
        turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        size: Callable[[Item], int] = lambda item: 1,
    ) -> None:
        """A batch is formed and computed within `turn`, a context that comes when the engine is free."""
        self.max_batch_size = max_batch_size
        self.last_success: float | None = None
        self.failures_in_a_row = 0
        self._process, self._observer, self._turn, self._size = process, observer or Observer(), turn, size
        self._waiting: Turns[Entry[Item, Result]] = Turns()
        self._arrived = asyncio.Event()
        self._stopped = False
        self._started: float | None = None
        self._working: set[Entry[Item, Result]] = set()

    @property
    def queued(self) -> int:
        """Entries waiting, those given up included until they are passed over."""
        return len(self._waiting)

    @property
    def busy_for(self) -> float:
        """Seconds the batch in work has taken so far; 0 when there is none."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    async def submit(self, item: Item, caller: Hashable = None, request: Hashable = None) -> Completed[Result]:
        """The result of `item`. Cancelling the call takes the item out of the queue, if it is not in work yet.

        Items take turns by `caller`, and by `request` within a caller. Raises what `process` raised for the item, as
        a ClipsrvError, and ShuttingDownError once stopped.
        """
        if self._stopped:
            raise _stopping()
        entry: Entry[Item, Result] = Entry(item, asyncio.get_running_loop().create_future())
        self._waiting.add(entry, caller, request)
        self._arrived.set()
        try:
            return await entry.future
        except asyncio.CancelledError:
            if entry in self._working:
                self._observer.abandoned("compute")
            else:
                del entry.item  # what nobody waits for must not fill memory while the engine is slow
                self._observer.abandoned("queue")
            raise
        finally:
            del entry, item  # an error holds the frames it came through: they must not hold it, or the item, in turn

    def stop(self) -> None:
        """For good: what waits fails with ShuttingDownError, and whatever comes later too."""
        self._stopped = True
        _fail(self._waiting, _stopping)
        self._waiting.clear()

    async def run(self) -> None:
        """Works until cancelled, which is for good; what is then in work or waiting fails with ShuttingDownError.

        Anything else that ends it is a fault of the engine: what was in work fails with InferenceFailedError, what
        waits goes on waiting, and `run` may be called again.
        """
        batch: list[Entry[Item, Result]] = []
        try:
            while True:
                await self._arrived.wait()
                while self._waiting:
                    async with self._turn():
                        batch = collect(self._waiting, self.max_batch_size, self._size)
                        if batch:
                            await self._run_batch(batch)
                    batch = []
                self._arrived.clear()
        except asyncio.CancelledError:
            _fail(batch, _stopping)
            self.stop()
            raise
        except BaseException:
            self.failures_in_a_row += 1
            _fail(batch, _failed)
            raise

    async def _run_batch(self, batch: list[Entry[Item, Result]]) -> None:
        started = self._started = time.monotonic()
        self._working = set(batch)
        try:
            results = await self._process([entry.item for entry in batch])
            computed = time.monotonic() - started
            if len(results) != len(batch):  # whose result is whose?
                raise InferenceFailedError(f"The model gave {len(results)} results for a batch of {len(batch)}.")
            self._observer.computed(computed, len(batch))
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    queued = started - entry.submitted
                    self._observer.waited(queued)
                    entry.future.set_result(Completed(result, queued, computed))
            self.last_success, self.failures_in_a_row = time.monotonic(), 0
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails these entries and not the loop
            await self._isolate(batch, error)
        finally:
            self._started = None
            self._working = set()

    async def _isolate(self, batch: list[Entry[Item, Result]], error: Exception) -> None:
        if len(batch) > 1:
            half = len(batch) // 2
            if isinstance(error, OutOfMemoryError):
                error.let_go()
                whole, less = (sum(self._size(entry.item) for entry in part) for part in (batch, batch[:half]))
                self.max_batch_size = min(self.max_batch_size, less)
                logger.warning("out of memory at batch size %d: now at most %d", whole, self.max_batch_size)
            for part in (batch[:half], batch[half:]):
                if alive := [entry for entry in part if not entry.future.done()]:
                    await self._run_batch(alive)
            return
        self.failures_in_a_row += 1
        logger.error("inference failed", exc_info=error)
        told = error.let_go() if isinstance(error, ClipsrvError) else _failed()
        self._observer.failed(told.code)
        _fail(batch, lambda: told)


def _fail(entries: Iterable[Entry[Item, Result]], error: Callable[[], ClipsrvError]) -> None:
    """Each entry gets an error of its own: raised again it would hold the frames of all of them."""
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(error())


def _failed() -> InferenceFailedError:
    return InferenceFailedError("The model could not compute this batch.")


def _stopping() -> ShuttingDownError:
    return ShuttingDownError("The server stopped before this was computed.")
