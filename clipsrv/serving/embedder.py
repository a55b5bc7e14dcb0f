"""The use case: encoded images or texts in, unit vectors out, by a model that is named. Joins slots, stock, deadline.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from clipsrv.errors import DeadlineExceededError, DimensionsNotOfferedError, ShuttingDownError, StartingError
from clipsrv.images.region import Encoded
from clipsrv.models.model import Model
from clipsrv.serving.admission import Admission
from clipsrv.serving.engine import Engine
from clipsrv.serving.observer import Observer
from clipsrv.serving.offer import Offer
from clipsrv.serving.outcome import Outcome
from clipsrv.serving.prompts import Prompt
from clipsrv.serving.stock import HEALTHY, UNHEALTHY, Stock
from clipsrv.serving.stream import Stream, Turns
from clipsrv.serving.visit import Visit
from clipsrv.serving.workshop import Workshop
from clipsrv.settings import TEXTS_PER_SLOT, ServingSettings

Result = TypeVar("Result")

STARTING, DRAINING = "starting", "draining"


class Embedder:
    """Serves models by name. `start` once, then any number of `embed_*` at once, then `drain`, `stop` and `close`."""

    def __init__(self, offer: Offer, settings: ServingSettings, observer: Observer | None = None) -> None:
        """Models are opened in a thread, so the server can answer meanwhile."""
        self.workshop = Workshop(settings)
        self.stock = Stock(offer, self.workshop, observer or Observer())
        self._deadline, self._window = settings.deadline, settings.stream_window
        # Half of the slots: who waits for a model that loads leaves the others to those whose model is there.
        self._waiting = Admission(max(1, settings.max_queue // 2), "image slots for models that are being loaded")
        self._started = self._draining = False

    @property
    def engine(self) -> Engine | None:
        """That of the default model, while it is loaded and once it is warm."""
        return self.stock.shelf.get(self.stock.default) if self._started else None

    @property
    def model(self) -> Model | None:
        """The default model, likewise."""
        return self.engine.model if self.engine else None

    @property
    def queued(self) -> int:
        """Items of all models that wait for inference."""
        return sum(batcher.queued for engine in self.stock.shelf for batcher in engine.batchers)

    @property
    def fault(self) -> str | None:
        """What keeps the default model from working, in a word; or None.

        Threads that hang cannot be ended: only a restart cures hanging and decoding.
        """
        return self.stock.fault_of(self.stock.default)

    @property
    def status(self) -> str:
        """starting, healthy, unhealthy (there is a `fault`) or draining."""
        if self._draining:
            return DRAINING
        if not self._started:
            return STARTING
        return UNHEALTHY if self.fault else HEALTHY

    async def start(self) -> None:
        """Loads and warms the models named, and serves from the first on. Raises StartError, EngineError or
        ShuttingDownError."""
        await self.stock.load_first()
        self._started = True
        await self.stock.load_others()

    def drain(self) -> None:
        """From now on `check_open` refuses; what was accepted goes on."""
        self._draining = True

    def stop(self) -> None:
        """Whatever is still in work fails with ShuttingDownError."""
        self.drain()
        self.workshop.give_up()
        self.stock.stop()

    async def close(self) -> None:
        """Stops, and gives the memory of the models back once what their threads do is done."""
        self.stop()
        try:
            await self.stock.shelf.close()
        finally:
            self.workshop.stop()

    def check_open(self, caller: Hashable = None, model: str | None = None) -> None:
        """Refuses what cannot be served now, before anything is read.

        Raises StartingError, ShuttingDownError, ModelNotOfferedError, ModelUnavailableError, or OverloadedError if not
        one slot is free for `caller`.
        """
        if self._draining:
            raise ShuttingDownError("The server is shutting down.")
        self._check_started()
        self.stock.name(model)
        self.workshop.slots.check(1, caller)

    async def embed_images(
        self,
        blobs: Sequence[Encoded],
        *,
        model: str | None = None,
        caller: Hashable = None,
        null_on_error: bool = False,
    ) -> Outcome:
        """Unit vectors of encoded images, in a slot each. Callers take turns, and so do the requests of one caller.

        Raises BadImagesError naming every image that cannot be used (unless `null_on_error`, which leaves None in
        its place), ModelNotOfferedError, ModelUnavailableError, OverloadedError, DeadlineExceededError, StartingError,
        ShuttingDownError or EngineError.
        """
        return await self._in_slots(
            len(blobs), caller, model, lambda visit: visit.embed_images(blobs, null_on_error=null_on_error)
        )

    async def embed_texts(self, texts: Sequence[str], *, model: str | None = None, caller: Hashable = None) -> Outcome:
        """Unit vectors of texts. Raises InvalidTextError, TextTowerMissingError, and as `embed_images`."""
        slots = -(-len(texts) // TEXTS_PER_SLOT)
        return await self._in_slots(slots, caller, model, lambda visit: visit.embed_texts(texts))

    async def embed_beside(
        self, blob: Encoded, prompts: Sequence[Prompt], *, model: str | None = None, caller: Hashable = None
    ) -> tuple[Outcome, Outcome]:
        """One image and the texts it is compared with, by one and the same engine; what is remembered of the texts is
        not computed again. Raises as both of the above."""
        slots = max(1, -(-len(prompts) // TEXTS_PER_SLOT))  # beside an image's pixels sixteen texts are next to nothing
        return await self._in_slots(slots, caller, model, lambda visit: visit.embed_beside(blob, prompts))

    async def embed_items(
        self,
        items: Sequence[Encoded | str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        caller: Hashable = None,
    ) -> Outcome:
        """Unit vectors of encoded images and of texts, in any order, by one and the same engine.

        Raises DimensionsNotOfferedError if the model's vectors have not the `dimensions` asked for, BadImagesError with
        places among all items, and as the others.
        """

        async def work(visit: Visit) -> Outcome:
            size = visit.model.manifest.dimensions
            if dimensions not in (None, size):
                raise DimensionsNotOfferedError(f"{visit.name} has vectors of {size} dimensions and no other size.")
            return await visit.embed_items(items)

        texts = sum(isinstance(item, str) for item in items)
        slots = len(items) - texts + -(-texts // TEXTS_PER_SLOT)
        return await self._in_slots(slots, caller, model, work)

    async def open_stream(self, *, model: str | None = None, caller: Hashable = None) -> Stream:
        """What embeds images as they come, by one model to the end, loaded anew where another needed its room.

        Raises as `embed_images` what is no fault of an image.
        """

        async def open_visit(name: str | None) -> Visit:
            return await self._in_slots(1, caller, name, _passed_on)

        def makes_way(visit: Visit) -> bool:
            return visit.is_wanted_back and self.stock.shelf.get(visit.name) is None

        slots, window = self.workshop.slots, self._window
        turns = Turns(makes_way, open_visit)
        visit = await open_visit(model)
        return Stream(visit, slots, turns, window=window, deadline=self._deadline, caller=caller)

    async def visit(self, model: str | None = None, caller: Hashable = None) -> Visit:
        """One engine until the visit ends, loaded first if need be; slots are for whoever visits to take.

        Raises ModelNotOfferedError, ModelUnavailableError, StartingError, ShuttingDownError, EngineError.
        """
        self._check_started()
        return Visit(await self.stock.lease(self.stock.name(model)), caller)

    async def _in_slots(
        self, slots: int, caller: Hashable, model: str | None, work: Callable[[Visit], Awaitable[Result]]
    ) -> Result:
        """What `work` makes of a visit, within these slots, all or none, and within the deadline."""
        self._check_started()
        name = self.stock.name(model)
        try:
            with self.workshop.slots.take(slots, caller):
                async with asyncio.timeout(self._deadline):
                    with await self._visit(name, slots, caller) as visit:
                        return await work(visit)
        except TimeoutError:
            loading = self.stock.shelf.get(name) is None
            cure = (
                f"{name} is still being loaded: try later." if loading else "Send fewer images at once, or try later."
            )
            raise DeadlineExceededError(f"Not finished within {self._deadline:g} s. {cure}") from None

    async def _visit(self, name: str, slots: int, caller: Hashable) -> Visit:
        if self.stock.shelf.get(name) is not None:
            return Visit(await self.stock.lease(name), caller)
        with self._waiting.take(min(slots, self._waiting.capacity)):
            return Visit(await self.stock.lease(name), caller)

    def _check_started(self) -> None:
        if not self._started:
            raise StartingError("The model is still loading. Try again in a moment.")


async def _passed_on(visit: Visit) -> Visit:
    return visit.pass_on()
