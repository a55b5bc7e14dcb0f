"""The models that are served, by name, loaded or not: leases of them, what each is doing, and why one cannot be had.

Knows nothing of slots, deadlines and requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from clipsrv.errors import ClipsrvError, EngineError, ModelUnavailableError, StartError
from clipsrv.models.model import Model
from clipsrv.serving.engine import Engine
from clipsrv.serving.history import History
from clipsrv.serving.keeper import Keeper
from clipsrv.serving.observer import Observer
from clipsrv.serving.offer import Offer
from clipsrv.serving.shelf import Loan, Shelf
from clipsrv.serving.workshop import Workshop

logger = logging.getLogger(__name__)

HEALTHY, UNHEALTHY = "healthy", "unhealthy"
#: What a model is that is not loaded.
LOADING, UNLOADED, FAILED = "loading", "unloaded", "failed"
#: Why a model cannot be loaded, by the code of the error; what the error says itself, paths and all, is in the log.
_WHY = {
    "model_corrupt": "its files are damaged or incomplete",
    "model_too_large": "there is not enough memory for it now",
    "unknown_model": "its folder is gone",
    "device_unavailable": "the device or precision that the server was started with is not possible for it",
}


class Stock:
    def __init__(self, offer: Offer, workshop: Workshop, observer: Observer) -> None:
        settings = workshop.settings
        self.shelf: Shelf[Engine] = Shelf(self._open, settings.max_loaded)
        self._offer, self._workshop, self._observer = offer, workshop, observer
        self._history = History()
        self._keeper = Keeper(self.shelf, offer, self._history, workshop, settings.unload_after)
        self._keeping: asyncio.Task[None] | None = None
        self._started = False

    @property
    def default(self) -> str:
        """The model meant where none is named."""
        return self._offer.named[0]

    @property
    def models(self) -> Mapping[str, Model]:
        """Those loaded, by name."""
        engines = {name: self.shelf.get(name) for name in self.shelf.names()}
        return {name: engine.model for name, engine in engines.items() if engine}

    def states(self) -> dict[str, str]:
        """Of every model that is served: healthy or unhealthy if it is loaded, else loading, failed or unloaded."""
        return {name: self._state(name) for name in self._offer.names()}

    def fault_of(self, name: str) -> str | None:
        """What keeps a model from working, in a word: failing, hanging or silent inference, hung decoding, loading
        where that failed; or None."""
        decoding, deadline = self._workshop.decoding, self._workshop.settings.deadline
        if 2 * decoding.lost(deadline) > decoding.threads:
            return "decoding"
        if engine := self.shelf.get(name):
            return engine.fault
        if self._workshop.inference.busy_for > deadline:
            return "hanging"
        return "loading" if self._history.failure(name) else None

    def name(self, model: str | None) -> str:
        """The model that is meant. Raises ModelNotOfferedError, or ModelUnavailableError if it could not be loaded a
        moment ago: what is not there need not make room for itself again."""
        name = self.default if model is None else self._offer.resolve(model)
        if self.shelf.has(name):
            return name
        if error := self._history.refusal(name, self._offer.version(name)):
            raise _unavailable(name, error)
        return name

    async def load_first(self) -> None:
        """The default model; then what is loaded is looked after. Raises StartError, EngineError, ShuttingDownError."""
        (await self.shelf.lease(self.default)).give_back()
        self._keeping = asyncio.create_task(self._keeper.run())

    async def load_others(self) -> None:
        """The other models named. Raises as `load_first`."""
        for name in self._offer.named[1:]:
            (await self.shelf.lease(name)).give_back()
        self._started = True

    async def lease(self, name: str) -> Loan[Engine]:
        """Raises ModelUnavailableError, EngineError, ShuttingDownError."""
        problem: list[ModelUnavailableError] = []
        try:
            return await self.shelf.lease(name)
        except StartError as error:
            problem.append(_unavailable(name, error))
        raise problem.pop()

    def stop(self) -> None:
        """Whatever waits or is in work fails with ShuttingDownError."""
        if self._keeping:
            self._keeping.cancel()
        self.shelf.stop()
        for engine in self.shelf:
            engine.stop()

    def _state(self, name: str) -> str:
        if self.shelf.get(name) is not None:
            return UNHEALTHY if self.fault_of(name) else HEALTHY
        if self.shelf.has(name):
            return LOADING
        return FAILED if self._history.failure(name) else UNLOADED

    async def _open(self, name: str) -> Engine:
        await self._workshop.aside(self._offer.refresh)
        version, began = self._offer.version(name), time.monotonic()
        try:
            engine = await self._begin(name)
        except (StartError, EngineError) as error:
            self._history.failed(name, version, error)
            self._observer.loaded(name, done=False)
            if self._started or name not in self._offer.named:  # else it ends the start, whose last word it is
                logger.error("%s cannot be loaded: %s", name, error.message)
            raise
        self._history.loaded(name, version)
        self._observer.loaded(name, done=True)
        logger.info("%s is loaded, in %.1f s", name, time.monotonic() - began)
        return engine

    async def _begin(self, name: str) -> Engine:
        async with AsyncExitStack() as undo:
            model = await self._workshop.open(partial(self._offer.load, name))
            undo.callback(model.close)
            engine = Engine(name, model, self._workshop, self._observer)
            undo.pop_all()
            undo.push_async_callback(engine.close)
            await engine.start()
            undo.pop_all()
        return engine


def _unavailable(name: str, error: ClipsrvError) -> ModelUnavailableError:
    reason = _WHY.get(error.code, "its inference does not work")
    return ModelUnavailableError(f"The model {name} cannot be loaded: {reason}. The server's log says more.")
