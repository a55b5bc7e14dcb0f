"""Weaviate's multi2vec-clip: what its database asks of an inference container, and the errors that it can read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from clipsrv.runtime.vectors import Vectors
from clipsrv.server.api.state import BODIES, CATALOG, EMBEDDER, ITEMS, state
from clipsrv.server.http.middleware import CALLER, REPORT
from clipsrv.server.http.routes import Route
from clipsrv.server.wire.documents import Document
from clipsrv.server.wire.envelope import InvalidFieldError
from clipsrv.server.wire.errors import Failure, in_words
from clipsrv.server.wire.inputs import is_string, model_of
from clipsrv.server.wire.items import Entry
from clipsrv.server.wire.options import one_model
from clipsrv.server.wire.replies import JSON_TYPE, deliver, stamp_work, written_list
from clipsrv.serving.stock import HEALTHY

#: Seconds after which whoever waits for a server that starts may ask again.
_SOON = "2"


async def vectorize(request: web.Request) -> web.Response:
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller, request.query.get("model"))
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        asked = await request.app[ITEMS].read(request, lease, vectorize_of)
        read, (named, images), count = time.monotonic() - started, asked.wishes, len(asked.items)
        model = one_model(request.query.get("model"), named)
        outcome = await embedder.embed_items(asked.items, model=model, caller=caller)
        del asked
        report, timings = request[REPORT], outcome.timings
        report.images, report.texts, report.timings, report.model = images, count - images, timings, outcome.name
        written = [
            await written_list(vectors, _row) for vectors in (outcome.vectors[images:], outcome.vectors[:images])
        ]
        body = b'{"textVectors":%s,"imageVectors":%s}' % (written[0], written[1])
        response = web.Response(body=body, content_type=JSON_TYPE)
        stamp_work(response, outcome.model.embedding_id, read, timings)
        return await deliver(request, response, lease)


async def meta(request: web.Request) -> web.Response:
    """What the database shows of its module: the model meant where none is named."""
    catalog, model = request.app[CATALOG], request.app[EMBEDDER].model
    facts = {"model": catalog.current, **(catalog.running(model) if model else {})}
    return web.Response(body=orjson.dumps(facts), content_type=JSON_TYPE)


async def live(request: web.Request) -> web.Response:
    return web.Response(status=204)


async def ready(request: web.Request) -> web.Response:
    status, _ = state(request.app)
    if status == HEALTHY:
        return web.Response(status=204)
    body = orjson.dumps({"error": f"The server is {status}."})
    return web.Response(status=503, body=body, content_type=JSON_TYPE, headers={"Retry-After": _SOON})


def vectorize_of(document: Document) -> tuple[Sequence[Entry], tuple[str | None, int]]:
    """Of {"texts": [str], "images": [base64]}, either of which may be null or left out, the images and then the texts;
    and the model named, if one is, and how many images there are. Raises InvalidFieldError."""
    entries: list[Entry] = []
    for field in ("images", "texts"):
        strings = document.get(field)
        if strings is None:
            strings = []
        if not isinstance(strings, list) or not all(map(is_string, strings)):
            raise InvalidFieldError(f"{field!r} must be a list of {'base64 ' if field == 'images' else ''}strings.")
        entries += [Entry(string, field == "images", f"{field}[{place}]") for place, string in enumerate(strings)]
    return entries, (model_of(document), sum(entry.is_image for entry in entries))


def weaviate_shape(failure: Failure, request_id: str) -> tuple[int, Mapping[str, Any]]:
    """A message alone: the database repeats it after the status."""
    return failure.status, {"error": in_words(failure, "images")}


def _row(index: int, row: Vectors | None) -> Vectors | None:
    return row


ROUTES = (
    Route("POST", "/vectorize", vectorize, weaviate_shape),
    Route("GET", "/meta", meta, weaviate_shape),
    Route("GET", "/.well-known/live", live, weaviate_shape),
    Route("GET", "/.well-known/ready", ready, weaviate_shape),
)
