"""Looks after what is loaded: what nobody uses is put away, what has changed is loaded anew.

The default model, which /health speaks of, is tried again where it failed. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from contextlib import suppress

from clipsrv.errors import ClipsrvError
from clipsrv.serving.engine import Engine
from clipsrv.serving.history import History
from clipsrv.serving.offer import Offer
from clipsrv.serving.shelf import Shelf
from clipsrv.serving.workshop import Workshop

logger = logging.getLogger(__name__)

#: Seconds between two looks, and the least.
_LOOK, _LEAST = 1.0, 0.1


class Keeper:
    """Works while `run` does. `unload_after` in seconds; None keeps what is loaded."""

    def __init__(
        self, shelf: Shelf[Engine], offer: Offer, history: History, workshop: Workshop, unload_after: float | None
    ) -> None:
        self._shelf, self._offer, self._history, self._workshop = shelf, offer, history, workshop
        self._unload_after, self._every = unload_after, min(_LOOK, max(_LEAST, unload_after or _LOOK))
        self._seen: dict[str, Hashable | None] = {}
        self._gone: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
            except Exception:  # the next look may be luckier, and serving goes on
                logger.exception("the models could not be looked after")

    async def look(self) -> None:
        """Once. A model is taken to have changed when two looks in a row find the same other version: it may be just
        being copied, or exchanged; and so it is with one that is served no more, which nobody can ask for."""
        if self._unload_after is not None:
            await self._shelf.evict_idle(self._unload_after)
        await self._workshop.aside(self._offer.refresh)
        before, self._gone = self._gone, set(self._shelf.names()) - set(self._offer.names())
        for name in before & self._gone:
            await self._shelf.evict(name)
        seen = {name: self._offer.version(name) for name in self._shelf.names()}
        known, self._seen = self._seen, seen
        for name, version in seen.items():
            if version is not None and known.get(name) == version and self._history.is_stale(name, version):
                await self._replace(name)
        await self._mend_default()

    async def _replace(self, name: str) -> None:
        logger.info("%s has changed: loading it anew", name)
        runs = self._history.version(name)
        try:
            await self._shelf.replace(name)
        except ClipsrvError:  # it was logged
            if not self._offer.is_written_over(name, runs):
                logger.warning("%s is served on as it was", name)
                return
            logger.error("%s is unloaded: its files were written over while it ran, so it may not be what it was", name)
            await self._shelf.evict(name)

    async def _mend_default(self) -> None:
        default = self._offer.named[0]
        failed = self._shelf.get(default) is None and self._history.failure(default)
        if failed and not self._history.refusal(default, self._offer.version(default)):
            with suppress(ClipsrvError):
                (await self._shelf.lease(default)).give_back()
