"""What the page shows of the index that is served: its images one after another, small copies, and what is near one.

Small copies are made of indexed files only, as long as they have the content that was indexed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from aiohttp import hdrs, web

from clipsrv.errors import DeadlineExceededError, NoIndexError, OriginalError
from clipsrv.images.thumbnail import thumbnail
from clipsrv.search.held import Held
from clipsrv.search.originals import original
from clipsrv.search.rows import Rows
from clipsrv.search.words import Item
from clipsrv.server.http.middleware import CALLER
from clipsrv.server.http.routes import Route
from clipsrv.server.indexed import Indexed
from clipsrv.server.wire.options import read_options, whole_number
from clipsrv.server.wire.replies import json_response
from clipsrv.serving.embedder import Embedder
from clipsrv.settings import ImageLimits

#: Pixels of a small copy's longer side, as those have that the page makes itself.
_SIDE = 320
#: Images told of at once, and as many where nothing is said.
_MOST, _USUAL = 1000, 100


class Gallery:
    """The images of an index by their ids. Where each id stands is found out once for each index, in its thread."""

    def __init__(self, embedder: Embedder, indexed: Indexed, beside: Path, limits: ImageLimits) -> None:
        self._embedder, self._indexed, self._beside, self._limits = embedder, indexed, beside, limits
        self._rows: tuple[Held, Rows] | None = None

    @property
    def model(self) -> str:
        """The model that made the index. Raises StartingError."""
        return self._indexed.model

    async def listed(self, first: int, limit: int, caller: str) -> tuple[int, list[Item]]:
        """How many images there are, and those from `first` on. Raises as Indexed.use."""

        def work(held: Held) -> tuple[int, list[Item]]:
            return len(held), [held.item(row) for row in range(first, min(first + limit, len(held)))]

        return await self._indexed.use(work, caller)

    async def item(self, id: str, caller: str) -> Item:
        """Raises OriginalError if no image of the index has this id, and as Indexed.use."""
        return await self._indexed.use(lambda held: held.item(self._row(held, id)), caller)

    async def near(self, id: str, limit: int, caller: str) -> list[tuple[Item, float]]:
        """What is nearest to an indexed image, itself first. Raises as `item`."""

        def work(held: Held) -> list[tuple[Item, float]]:
            return [(one.item, one.score) for one in held.nearest(held.vector(self._row(held, id)), limit)]

        return await self._indexed.use(work, caller)

    async def small(self, item: Item, caller: str) -> bytes:
        """A JPEG. It takes a slot, a thread and pixels as an image does that is embedded. Raises OriginalError,
        ImageError, OverloadedError, DeadlineExceededError, ShuttingDownError."""
        workshop = self._embedder.workshop

        def work() -> bytes:
            return thumbnail(original(item, self._beside, self._limits.max_bytes), _SIDE, self._limits, workshop.budget)

        with workshop.slots.take(1, caller):
            try:
                async with asyncio.timeout(self._indexed.deadline):
                    return await workshop.decoding.run(work, caller, object())
            except TimeoutError:
                raise DeadlineExceededError("Not made in time. Try later.") from None

    def _row(self, held: Held, id: str) -> int:
        if self._rows is None or self._rows[0] is not held:
            self._rows = held, Rows(held)
        row = self._rows[1].find(id)
        if row is None:
            raise OriginalError("No image of the index has this id.")
        return row


GALLERY = web.AppKey("gallery", Gallery)


async def listed(request: web.Request) -> web.Response:
    options = read_options(request, {}, free=("first", "limit"))
    if GALLERY not in request.app:  # no error: the page asks every server whether it has an index
        return json_response({"count": 0, "items": [], "model": None})
    gallery = request.app[GALLERY]
    first, limit = whole_number(options, "first", 0, 0, 10**12), whole_number(options, "limit", _USUAL, 0, _MOST)
    count, items = await gallery.listed(first, limit, request[CALLER])
    told = [{"id": item.id, "path": item.path} for item in items]
    return json_response({"count": count, "items": told, "model": gallery.model})


async def near(request: web.Request) -> web.Response:
    options, gallery = read_options(request, {}, free=("id", "limit")), _gallery(request)
    limit = max(1, whole_number(options, "limit", _USUAL, 0, _MOST))
    found = await gallery.near(options.get("id", ""), limit, request[CALLER])
    told = [{"id": item.id, "path": item.path, "score": np.float32(score)} for item, score in found]
    return json_response({"results": told, "model": gallery.model})


async def small(request: web.Request) -> web.Response:
    options, gallery = read_options(request, {}, free=("id",)), _gallery(request)
    item = await gallery.item(options.get("id", ""), request[CALLER])
    # Its content is the item's, whose hash the index has: what a browser holds of it stays right for ever.
    headers = {hdrs.ETAG: f'"{item.sha256}-{_SIDE}"', hdrs.CACHE_CONTROL: "private, no-cache"}
    if request.headers.get(hdrs.IF_NONE_MATCH) == headers[hdrs.ETAG]:
        return web.Response(status=304, headers=headers)
    return web.Response(body=await gallery.small(item, request[CALLER]), content_type="image/jpeg", headers=headers)


def _gallery(request: web.Request) -> Gallery:
    if GALLERY not in request.app:
        raise NoIndexError("This server has no index to show; it has one if it is started with --index.")
    return request.app[GALLERY]


ROUTES = (
    Route("GET", "/gallery", listed),
    Route("GET", "/gallery/near", near),
    Route("GET", "/gallery/thumbnail", small),
)
