"""Images as they come to vectors as they are done: a few of a long request in work at once, each within the deadline.

Whoever brings them waits while slots are full; whoever takes the vectors, by not taking them, stops it all. Knows
nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import NamedTuple

from clipsrv.errors import ClipsrvError, DeadlineExceededError, ModelUnavailableError, ShuttingDownError
from clipsrv.images.region import Encoded
from clipsrv.serving.admission import Admission, Lease
from clipsrv.serving.outcome import Finished
from clipsrv.serving.visit import Visit

#: An encoded image, or what is wrong with it; whatever holds it ends when it is done.
Arriving = AbstractContextManager[Encoded | ClipsrvError]


class Done(NamedTuple):
    """What came of one image, by its place among those that came."""

    place: int
    result: Finished | ClipsrvError


class Turns(NamedTuple):
    """How a stream makes room for models of others: whether its visit `makes_way`, and what opens another of a name."""

    makes_way: Callable[[Visit], bool]
    open_visit: Callable[[str], Awaitable[Visit]]


class Stream:
    """One long request's time with one model. A context manager, which ends the `visit`."""

    def __init__(
        self, visit: Visit, slots: Admission, turns: Turns, *, window: int, deadline: float, caller: Hashable
    ) -> None:
        """At most `window` images are in work, or done and not yet taken; each has `deadline` seconds."""
        self.visit = visit
        self._slots, self._turns, self._deadline, self._caller = slots, turns, deadline, caller
        self._window = asyncio.Semaphore(window)
        self._done: list[Done] = []
        self._news = asyncio.Event()
        self._works: set[asyncio.Task[None]] = set()
        self._problems: list[Exception] = []

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.visit.__exit__(kind, error, trace)

    async def embed(self, images: AsyncIterator[Arriving]) -> AsyncGenerator[list[Done]]:
        """What is done, in no order, whenever something is: once.

        In the end, when all that had come is done, raises what `images` raised; OverloadedError if no slot was free for
        as long as an image may take; what opening a visit raises; ModelUnavailableError if the model is another by now;
        ShuttingDownError.
        """
        taking = self._begin(self._take(images), ExitStack())
        try:
            while self._works or self._done:
                await self._news.wait()
                self._news.clear()
                if self._problems:
                    taking.cancel()
                done, self._done = self._done, []
                if done:
                    yield done
                for _ in done:
                    self._window.release()
        finally:
            works = list(self._works)
            for work in works:
                work.cancel()
            if works:
                await asyncio.wait(works)
            # Not kept where nobody takes them: they hold the frames they came through, and these hold the stream.
            problems, self._problems = self._problems, []
        if problems:
            raise problems.pop()

    async def _take(self, images: AsyncIterator[Arriving]) -> None:
        place = 0
        await self._window.acquire()
        async for arriving in images:
            with ExitStack() as held:
                image = held.enter_context(arriving)
                if self._turns.makes_way(self.visit):
                    await self._begin_again()
                held.enter_context(await self._slot())
                # Not in the task: one that is cancelled before it has begun runs nothing.
                self._begin(self._embed(place, image), held.pop_all())
            del arriving, image
            place += 1
            await self._window.acquire()

    async def _begin_again(self) -> None:
        """Gives the engine back, and has it loaded again when its turn comes."""
        if others := self._works - {asyncio.current_task()}:
            await asyncio.wait(others)
        before = self.visit.model.embedding_id
        self.visit.__exit__(None, None, None)
        self.visit = await self._turns.open_visit(self.visit.name)
        if self.visit.model.embedding_id != before:
            message = f"{self.visit.name} was exchanged for another model while others had its room."
            raise ModelUnavailableError(message)

    async def _slot(self) -> Lease:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadline):
                return await self._slots.wait(1, self._caller)
        return self._slots.take(1, self._caller)

    async def _embed(self, place: int, image: Encoded | ClipsrvError) -> None:
        result: list[Finished | ClipsrvError] = []
        try:
            if isinstance(image, ClipsrvError):
                raise image
            async with asyncio.timeout(self._deadline):
                result.append(await self.visit.embed_image(image))
        except ShuttingDownError:
            raise
        except ClipsrvError as error:
            result.append(error.let_go())
        except TimeoutError:
            result.append(DeadlineExceededError(f"Not finished within {self._deadline:g} s."))
        self._done.append(Done(place, result.pop()))

    def _begin(self, work: Coroutine[None, None, None], held: ExitStack) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            work.close()  # which has not begun if its task was cancelled at once
            held.close()
            self._works.discard(task)
            self._news.set()

        task = asyncio.create_task(self._run(work))
        self._works.add(task)
        task.add_done_callback(ended)
        return task

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised by `embed`; a task would keep the frames it came through
            if not self._problems:
                self._problems.append(error.let_go() if isinstance(error, ClipsrvError) else error)
