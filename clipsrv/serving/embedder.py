"""The use case: encoded images or texts in, unit vectors out, by a model that is named. Joins slots, shelf, deadline.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

from clipsrv.errors import DeadlineExceededError, ModelNotOfferedError, ShuttingDownError, StartingError
from clipsrv.models.model import Model
from clipsrv.serving.engine import Engine
from clipsrv.serving.observer import Observer
from clipsrv.serving.outcome import Outcome
from clipsrv.serving.shelf import Shelf
from clipsrv.serving.visit import Visit
from clipsrv.serving.workshop import Workshop
from clipsrv.settings import TEXTS_PER_SLOT, ServingSettings

Result = TypeVar("Result")

STARTING, HEALTHY, UNHEALTHY, DRAINING = "starting", "healthy", "unhealthy", "draining"


class Embedder:
    """Serves models by name. `start` once, then any number of `embed_*` at once, then `drain`, `stop` and `close`."""

    def __init__(
        self,
        load: Callable[[str], Model],
        models: Sequence[str],
        settings: ServingSettings,
        observer: Observer | None = None,
    ) -> None:
        """Offers `models`, of which the first is meant where none is named. `load` opens one by its name; it runs in a
        thread, so the server can answer meanwhile."""
        self.workshop = Workshop(settings)
        self.shelf: Shelf[Engine] = Shelf(self._open)
        self._load, self._models, self._deadline = load, tuple(models), settings.deadline
        self._observer = observer or Observer()
        self._started = self._draining = False

    @property
    def engine(self) -> Engine | None:
        """That of the default model, once it is warm."""
        return self.shelf.get(self._models[0]) if self._started else None

    @property
    def model(self) -> Model | None:
        """The default model once it is warm."""
        return self.engine.model if self.engine else None

    @property
    def queued(self) -> int:
        """Items of all models that wait for inference."""
        return sum(batcher.queued for engine in self.shelf for batcher in engine.batchers)

    @property
    def fault(self) -> str | None:
        """What keeps the server from working, in a word: failing, hanging or silent inference, hung decoding; or None.

        Threads that hang cannot be ended: only a restart cures hanging and decoding.
        """
        decoding = self.workshop.decoding
        if 2 * decoding.lost(self._deadline) > decoding.threads:
            return "decoding"
        return self.engine.fault if self.engine else None

    @property
    def status(self) -> str:
        """starting, healthy, unhealthy (there is a `fault`) or draining."""
        if self._draining:
            return DRAINING
        if not self._started:
            return STARTING
        return UNHEALTHY if self.fault else HEALTHY

    async def start(self) -> None:
        """Loads and warms the default model. Raises StartError, EngineError or ShuttingDownError."""
        (await self.shelf.lease(self._models[0])).give_back()
        self._started = True

    def drain(self) -> None:
        """From now on `check_open` refuses; what was accepted goes on."""
        self._draining = True

    def stop(self) -> None:
        """Whatever is still in work fails with ShuttingDownError."""
        self.drain()
        self.workshop.give_up()
        for engine in self.shelf:
            engine.stop()

    async def close(self) -> None:
        """Stops, and gives the memory of the models back once what their threads do is done."""
        self.stop()
        try:
            await self.shelf.close()
        finally:
            self.workshop.stop()

    def check_open(self, caller: Hashable = None) -> None:
        """Refuses what cannot be served now, before anything is read.

        Raises StartingError, ShuttingDownError, or OverloadedError if not one slot is free for `caller`.
        """
        if self._draining:
            raise ShuttingDownError("The server is shutting down.")
        self._check_started()
        self.workshop.slots.check(1, caller)

    async def embed_images(
        self,
        blobs: Sequence[bytes | memoryview],
        *,
        model: str | None = None,
        caller: Hashable = None,
        null_on_error: bool = False,
    ) -> Outcome:
        """Unit vectors of encoded images, in a slot each. Callers take turns, and so do the requests of one caller.

        Raises BadImagesError naming every image that cannot be used (unless `null_on_error`, which leaves None in
        its place), ModelNotOfferedError, OverloadedError, DeadlineExceededError, StartingError, ShuttingDownError or
        EngineError.
        """
        return await self._in_slots(
            len(blobs), caller, model, lambda visit: visit.embed_images(blobs, null_on_error=null_on_error)
        )

    async def embed_texts(self, texts: Sequence[str], *, model: str | None = None, caller: Hashable = None) -> Outcome:
        """Unit vectors of texts. Raises InvalidTextError, TextTowerMissingError, and as `embed_images`."""
        slots = -(-len(texts) // TEXTS_PER_SLOT)
        return await self._in_slots(slots, caller, model, lambda visit: visit.embed_texts(texts))

    async def embed_beside(
        self, blob: bytes | memoryview, prompts: Sequence[str], *, model: str | None = None, caller: Hashable = None
    ) -> tuple[Outcome, Outcome]:
        """One image and the texts it is compared with, by one and the same engine; what is remembered of the texts is
        not computed again. Raises as both of the above."""
        slots = max(1, -(-len(prompts) // TEXTS_PER_SLOT))  # beside an image's pixels sixteen texts are next to nothing
        return await self._in_slots(slots, caller, model, lambda visit: visit.embed_beside(blob, prompts))

    async def visit(self, model: str | None = None, caller: Hashable = None) -> Visit:
        """One engine until the visit ends, loaded first if need be; slots are for whoever visits to take.

        Raises ModelNotOfferedError, StartingError, ShuttingDownError, and whatever loading raises.
        """
        self._check_started()
        return Visit(await self.shelf.lease(self._name(model)), caller)

    async def _in_slots(
        self, slots: int, caller: Hashable, model: str | None, work: Callable[[Visit], Awaitable[Result]]
    ) -> Result:
        """What `work` makes of a visit, within these slots, all or none, and within the deadline."""
        try:
            with self.workshop.slots.take(slots, caller):
                async with asyncio.timeout(self._deadline):
                    with await self.visit(model, caller) as visit:
                        return await work(visit)
        except TimeoutError:
            raise DeadlineExceededError(
                f"Not finished within {self._deadline:g} s. Send fewer images at once, or try later."
            ) from None

    def _name(self, model: str | None) -> str:
        if model is None:
            return self._models[0]
        if model not in self._models:
            raise ModelNotOfferedError(f"No model {model[:64]!r} is served here; there are: {', '.join(self._models)}.")
        return model

    def _check_started(self) -> None:
        if not self._started:
            raise StartingError("The model is still loading. Try again in a moment.")

    async def _open(self, name: str) -> Engine:
        async with AsyncExitStack() as undo:
            model = await self.workshop.open(partial(self._load, name))
            undo.callback(model.close)
            engine = Engine(model, self.workshop, self._observer)
            undo.pop_all()
            undo.push_async_callback(engine.close)
            await engine.start()
            undo.pop_all()
        return engine
