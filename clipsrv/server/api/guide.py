"""The guide's endpoints, /embed, /embed/batch and /embed/text: read, embed, answer; all else is in what they call."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from clipsrv.server.api.state import BODIES, EMBEDDER, INPUTS
from clipsrv.server.api.streams import embed_stream
from clipsrv.server.http.middleware import CALLER, REPORT
from clipsrv.server.http.routes import Route
from clipsrv.server.wire.crops import CROP, crop_of_query, cropped
from clipsrv.server.wire.envelope import NotAcceptableError
from clipsrv.server.wire.errors import describe
from clipsrv.server.wire.options import negotiate, one_model, read_options
from clipsrv.server.wire.replies import BASE64, JSON, LINES, NPY, deliver, stamp_work, vectors_response
from clipsrv.serving.outcome import Outcome

_ENCODINGS = {"encoding": (JSON, BASE64)}
_FREE = ("model",)
_OF_ONE_IMAGE = (*_FREE, CROP)
_BATCH_OPTIONS = {**_ENCODINGS, "on_error": ("fail", "null")}


async def embed(request: web.Request) -> web.Response:
    return await _embed_images(request, many=False)


async def embed_batch(request: web.Request) -> web.StreamResponse:
    options = read_options(request, _BATCH_OPTIONS, free=_FREE)
    if negotiate(request, options["encoding"], lines=True) == LINES:
        return await embed_stream(request, options)
    return await _embed_images(request, many=True)


async def embed_text(request: web.Request) -> web.Response:
    options = read_options(request, _ENCODINGS, free=_FREE)
    form = negotiate(request, options["encoding"])
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller, options.get("model"))
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        asked = await request.app[INPUTS].texts(request, lease)
        read = time.monotonic() - started
        model, many = one_model(options.get("model"), asked.model), asked.many
        outcome = await embedder.embed_texts(asked.items, model=model, caller=caller)
        request[REPORT].texts = len(asked.items)
        extra: dict[str, Any] = {"truncated": list(outcome.truncated) if many else bool(outcome.truncated)}
        if outcome.unknown_script:  # said only where it is so
            extra["unknown_script"] = list(outcome.unknown_script) if many else True
        del asked
        return await deliver(request, await _answer(request, outcome, form, read, many=many, extra=extra), lease)


async def _embed_images(request: web.Request, *, many: bool) -> web.Response:
    options = read_options(request, _BATCH_OPTIONS if many else _ENCODINGS, free=_FREE if many else _OF_ONE_IMAGE)
    form = negotiate(request, options["encoding"])
    null_on_error, region = options.get("on_error") == "null", crop_of_query(options.get(CROP))
    if null_on_error and form == NPY:
        raise NotAcceptableError("on_error=null needs a JSON answer: a NumPy file cannot say which images failed.")
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller, options.get("model"))
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        asked = await request.app[INPUTS].images(request, lease, many=many)
        read = time.monotonic() - started
        model = one_model(options.get("model"), asked.model)
        items = [cropped(item, region) for item in asked.items]
        outcome = await embedder.embed_images(items, model=model, caller=caller, null_on_error=null_on_error)
        request[REPORT].images = len(items)
        extra = {"errors": describe(outcome.bad)} if null_on_error else {}
        del asked, items
        return await deliver(request, await _answer(request, outcome, form, read, many=many, extra=extra), lease)


async def _answer(
    request: web.Request, outcome: Outcome, form: str, read: float, *, many: bool, extra: dict[str, Any]
) -> web.Response:
    model = outcome.model
    request[REPORT].timings, request[REPORT].model = outcome.timings, outcome.name
    facts = {"dimensions": model.manifest.dimensions, "model": outcome.name, **extra}
    response = await vectors_response(outcome.vectors, form, many=many, extra=facts)
    timings = outcome.timings
    stamp_work(response, model.embedding_id, read, timings)
    return response


ROUTES = (
    Route("POST", "/embed", embed),
    Route("POST", "/embed/batch", embed_batch),
    Route("POST", "/embed/text", embed_text),
)
