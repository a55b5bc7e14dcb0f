"""What each endpoint does: read, embed, answer. One function an endpoint; all else is in the modules it calls."""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web

from clipsrv.embedder import HEALTHY, STARTING, UNHEALTHY, Embedded, Embedder
from clipsrv.errors import NotAcceptableError
from clipsrv.server.catalog import Catalog
from clipsrv.server.errors import describe
from clipsrv.server.middleware import CALLER, METRICS, REPORT
from clipsrv.server.payloads import BodyReader
from clipsrv.server.replies import BASE64, JSON, NPY, embeddings_response, negotiate, read_options

EMBEDDER = web.AppKey("embedder", Embedder)
BODIES = web.AppKey("bodies", BodyReader)
CATALOG = web.AppKey("catalog", Catalog)
OPENAPI = web.AppKey("openapi", dict[str, Any])

_ENCODINGS = {"encoding": (JSON, BASE64)}
_BATCH_OPTIONS = {**_ENCODINGS, "on_error": ("fail", "null")}


async def embed(request: web.Request) -> web.Response:
    return await _embed_images(request, many=False)


async def embed_batch(request: web.Request) -> web.Response:
    return await _embed_images(request, many=True)


async def embed_text(request: web.Request) -> web.Response:
    options = read_options(request, _ENCODINGS)
    form = negotiate(request, options["encoding"])
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller)
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        texts, many = await bodies.read_texts(request, lease)
        read = time.monotonic() - started
        embedded = await embedder.embed_texts(texts, caller=caller)
    truncated = {"truncated": list(embedded.truncated) if many else bool(embedded.truncated)}
    return _answer(request, embedded, form, read, many=many, extra=truncated)


async def health(request: web.Request) -> web.Response:
    read_options(request, {})
    embedder, catalog = request.app[EMBEDDER], request.app[CATALOG]
    body: dict[str, Any] = {"status": embedder.status, "model": catalog.current}
    if embedder.model is not None:
        body |= catalog.running(embedder.model)
    if body["status"] == UNHEALTHY:
        body["fault"] = embedder.fault
    response = _json(body, 200 if body["status"] == HEALTHY else 503)
    if body["status"] == STARTING:
        response.headers["Retry-After"] = "2"
    return response


async def live(request: web.Request) -> web.Response:
    return _json({"status": "live"})


async def metrics(request: web.Request) -> web.Response:
    text = request.app[METRICS].render()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def models(request: web.Request) -> web.Response:
    read_options(request, {})
    return _json(request.app[CATALOG].describe(request.app[EMBEDDER].model))


async def openapi(request: web.Request) -> web.Response:
    return _json(request.app[OPENAPI])


async def _embed_images(request: web.Request, *, many: bool) -> web.Response:
    options = read_options(request, _BATCH_OPTIONS if many else _ENCODINGS)
    form = negotiate(request, options["encoding"])
    null_on_error = options.get("on_error") == "null"
    if null_on_error and form == NPY:
        raise NotAcceptableError("on_error=null needs a JSON answer: a NumPy file cannot say which images failed.")
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller)
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        blobs = await bodies.read_images(request, lease, many=many)
        read = time.monotonic() - started
        embedded = await embedder.embed_images(blobs, caller=caller, null_on_error=null_on_error)
    extra = {"errors": describe(embedded.bad)} if null_on_error else {}
    return _answer(request, embedded, form, read, many=many, extra=extra)


def _answer(
    request: web.Request, embedded: Embedded, form: str, read: float, *, many: bool, extra: dict[str, Any]
) -> web.Response:
    model = request.app[EMBEDDER].model
    assert model is not None
    request[REPORT].images, request[REPORT].timings = len(embedded.embeddings), embedded.timings
    facts = {"dimensions": model.manifest.dimensions, "model": model.manifest.name, **extra}
    response = embeddings_response(embedded.embeddings, form, many=many, extra=facts)
    timings = embedded.timings
    stages = {"read": read, "decode": timings.decode, "queue": timings.queue, "inference": timings.inference}
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * took:.1f}" for name, took in stages.items())
    response.headers["X-Embedding-Id"] = model.embedding_id
    return response


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
