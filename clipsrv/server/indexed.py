"""The index that is served: opened at the start, searched beside the event loop, opened anew when it is replaced.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar

import numpy as np

from clipsrv.errors import (
    ClipsrvError,
    DeadlineExceededError,
    IndexUnavailableError,
    ModelNotOfferedError,
    ModelUnavailableError,
    StartingError,
)
from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.held import Held
from clipsrv.search.maker import maker_among
from clipsrv.search.opening import open_held, version_of
from clipsrv.search.words import Found
from clipsrv.serving.admission import Admission
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.pool import FairPool

Result = TypeVar("Result")

logger = logging.getLogger("clipsrv")

#: An index that took long to open is opened again after so many times as long at the soonest: one that grows all the
#: time must not be read all the time.
_REST = 10


class Indexed:
    """`open`, then `match`, then any number of `use` and `nearest` at once. One thread does them, in turns of callers;
    what it is at is never closed under it."""

    def __init__(self, where: str, deadline: float, waiting: int) -> None:
        """At most `waiting` wait at once, each for `deadline` seconds."""
        self._where, self.deadline = where, deadline
        self._waiting = Admission(waiting, "searches", per_holder=max(1, 3 * waiting // 4))
        self._thread = FairPool(1, "search")
        self._held: Held | None = None
        self.rest = _REST
        self._seen: tuple[object, str] | None = None
        self._opened, self._took = 0.0, 0.0
        self._model: str | None = None

    @property
    def model(self) -> str:
        """The name that the model that made the index is served by. Raises StartingError."""
        if self._model is None:
            raise StartingError("The index is still being opened. Try again in a moment.")
        return self._model

    async def open(self) -> None:
        """Opens the index, every vector looked at. Raises ConfigError, UnusableIndexError, ShuttingDownError."""
        seen, held = version_of(self._where), await self._thread.run(self._open)
        self._held, self._seen = held, (seen, held.facts.embedding_id)
        logger.info("index %s: %d vectors of %d, embedding_id %s", *_told(held))

    async def match(self, embedder: Embedder) -> None:
        """Finds among the models that are served the one that made the index, which may have to be loaded. Raises
        UnusableIndexError if none did, naming both, EngineError, ShuttingDownError."""
        assert self._held is not None
        facts = self._held.facts
        loaded = {name: model.embedding_id for name, model in embedder.stock.models.items()}
        if facts.model and facts.model not in loaded:
            try:
                with await embedder.visit(facts.model) as visit:
                    loaded[visit.name] = visit.model.embedding_id
            except (ModelNotOfferedError, ModelUnavailableError):
                pass
        self._model = maker_among(self._held, loaded)

    async def nearest(self, query: Vectors, embedding_id: str, limit: int, caller: Hashable = None) -> list[Found]:
        """As words.Index has it, of a query of the model of this `embedding_id`. Raises IndexUnavailableError if the
        index is of another by now, and as `use`."""

        def work(held: Held) -> list[Found]:
            if held.facts.embedding_id != embedding_id:
                raise IndexUnavailableError("The index and the model that is served do not belong together any more.")
            return held.nearest(query, limit)

        return await self.use(work, caller, embedding_id)

    async def use(
        self, work: Callable[[Held], Result], caller: Hashable = None, embedding_id: str | None = None
    ) -> Result:
        """What `work` makes of the index as it is now, preferably of this `embedding_id`. Raises IndexUnavailableError
        if it cannot be read any more, OverloadedError, DeadlineExceededError, ShuttingDownError."""
        with self._waiting.take(1, caller):
            try:
                async with asyncio.timeout(self.deadline):
                    return await self._thread.run(partial(self._use, work, embedding_id), caller, object())
            except TimeoutError:
                raise DeadlineExceededError(f"Not searched within {self.deadline:g} s. Try later.") from None

    def stop(self) -> None:
        """Whatever waits or is in work fails with ShuttingDownError; the index is closed."""
        self._thread.stop()
        if self._held is not None:
            self._held.close()

    def _use(self, work: Callable[[Held], Result], embedding_id: str | None) -> Result:
        assert self._held is not None
        self._renew(self._held, embedding_id or self._held.facts.embedding_id)
        try:
            return work(self._held)
        except UnusableIndexError as error:
            logger.error("the index cannot be searched: %s", error.message)
            self._seen = None  # whatever is there now may be better
        raise IndexUnavailableError("The index was damaged while it was in use. The server's log says more.")

    def _renew(self, held: Held, embedding_id: str) -> None:
        """Takes what has replaced the index in its place, if it can be used and is of this `embedding_id`."""
        # Before it is opened: what comes while it is opened is seen later.
        found = (version_of(self._where), embedding_id)
        if found[0] is None or found == self._seen or time.monotonic() - self._opened < self.rest * self._took:
            return
        self._seen = found
        try:
            new = self._open()
            if new.facts.embedding_id != embedding_id:
                new.close()
                raise UnusableIndexError(f"{new.name} holds vectors of another model.")
        except ClipsrvError as error:
            logger.error("the index was replaced by one that cannot be used; the old one stays: %s", error.message)
            return
        held.close()
        self._held = new
        logger.info("index %s was replaced: %d vectors of %d, embedding_id %s", *_told(new))

    def _open(self) -> Held:
        """The index that is there now, every vector of it looked at."""
        began = time.monotonic()
        held = open_held(self._where)
        try:
            held.nearest(np.eye(1, held.facts.dimensions, dtype=np.float32)[0], 1)
        except UnusableIndexError:
            held.close()
            raise
        finally:
            self._opened, self._took = time.monotonic(), time.monotonic() - began
        return held


def _told(held: Held) -> tuple[str, int, int, str]:
    return held.name, len(held), held.facts.dimensions, held.facts.embedding_id
