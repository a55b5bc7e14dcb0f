"""JSON bodies to whatever a protocol reads out of them, away from the event loop where they are large."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from aiohttp import web

from clipsrv.server.wire.bodies import BodyReader
from clipsrv.server.wire.envelope import EmptyBodyError, InvalidJsonError
from clipsrv.serving.admission import Lease

Document = dict[str, Any]
Result = TypeVar("Result")

#: JSON of more bytes is read in a thread.
_LARGE = 65_536


class DocumentReader:
    """Reads bodies that are a JSON object, and translates them in the same place."""

    def __init__(self, bodies: BodyReader) -> None:
        self._bodies = bodies

    async def read(self, request: web.Request, lease: Lease, translate: Callable[[Document], Result]) -> Result:
        """What `translate`, a pure function, makes of the document.

        Raises EmptyBodyError, InvalidJsonError, what `translate` raises, and as BodyReader.chunks.
        """
        body = await self._bodies.read(request, lease)
        if len(body) <= _LARGE:
            return translate(parse(body))
        return await asyncio.to_thread(lambda: translate(parse(body)))


def parse(body: bytes) -> Document:
    """The JSON object that `body` is. Raises EmptyBodyError, InvalidJsonError."""
    if not body:
        raise EmptyBodyError("The body is empty; send JSON.")
    try:
        document = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError):
        raise InvalidJsonError("The body is not valid JSON in UTF-8.") from None
    if not isinstance(document, dict):
        raise InvalidJsonError("The body must be a JSON object.")
    return document
