"""OpenAI's /v1/embeddings and /v1/models, for the clients that people already have; errors in the shape they read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from clipsrv.runtime.vectors import Vectors
from clipsrv.server.api.state import BODIES, CATALOG, EMBEDDER, ITEMS
from clipsrv.server.http.middleware import CALLER, REPORT
from clipsrv.server.http.routes import Route
from clipsrv.server.wire.embeddings import BASE64, embeddings_of
from clipsrv.server.wire.envelope import BodyTooLargeError
from clipsrv.server.wire.errors import Failure, in_words
from clipsrv.server.wire.options import one_model
from clipsrv.server.wire.replies import JSON_TYPE, deliver, stamp_work, to_base64, written_list
from clipsrv.serving.outcome import Outcome

#: Statuses that OpenAI's clients know what to do with; any other refusal is 400 to them.
_KNOWN = {401, 403, 404, 405, 408, 413, 415, 417, 429}
_PERHAPS_TOKENS = " Of token ids none can be read: send the texts (in LangChain: check_embedding_ctx_length=False)."


async def embeddings(request: web.Request) -> web.Response:
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller, request.query.get("model"))
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        try:
            asked = await request.app[ITEMS].read(request, lease, embeddings_of)
        except BodyTooLargeError as error:
            raise BodyTooLargeError(error.message + _PERHAPS_TOKENS, **error.details) from None
        read, wishes, items = time.monotonic() - started, asked.wishes, asked.items
        del asked
        model = one_model(request.query.get("model"), wishes.model)
        outcome = await embedder.embed_items(items, model=model, dimensions=wishes.dimensions, caller=caller)
        report = request[REPORT]
        report.texts = sum(isinstance(item, str) for item in items)
        report.images, report.timings, report.model = len(items) - report.texts, outcome.timings, outcome.name
        del items
        return await deliver(request, await _answer(outcome, wishes.encoding, read), lease)


async def models(request: web.Request) -> web.Response:
    """The names that `model` may have."""
    rows = [
        {"id": name, "object": "model", "created": created, "owned_by": "clipsrv"}
        for name, created in request.app[CATALOG].offered().items()
    ]
    return web.Response(body=orjson.dumps({"object": "list", "data": rows}), content_type=JSON_TYPE)


async def _answer(outcome: Outcome, encoding: str, read: float) -> web.Response:
    def entry(index: int, row: Vectors | None) -> dict[str, Any]:
        assert row is not None
        return {"object": "embedding", "index": index, "embedding": to_base64(row) if encoding == BASE64 else row}

    data = await written_list(outcome.vectors, entry)
    facts: dict[str, Any] = {
        "model": outcome.name,
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
    }
    for name in ("truncated", "unknown_script"):  # said only where it is so
        if places := getattr(outcome, name):
            facts[name] = list(places)
    rest = orjson.dumps(facts)[1:]
    response = web.Response(body=b'{"object":"list","data":%s,%s' % (data, rest), content_type=JSON_TYPE)
    timings = outcome.timings
    stamp_work(response, outcome.model.embedding_id, read, timings)
    return response


def openai_shape(failure: Failure, request_id: str) -> tuple[int, Mapping[str, Any]]:
    """OpenAI's error body; `detail` is where the clients of Jina and infinity look. Codes are the server's own."""
    refused = failure.status < 500
    status = 400 if refused and failure.status not in _KNOWN else failure.status
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if refused else "server_error"
    message = in_words(failure, "input")
    param = "input" if "images" in failure.details else failure.details.get("param")
    error = {"message": message, "type": kind, "param": param, "code": failure.code}
    return status, {"error": error, "detail": message}


ROUTES = (
    Route("POST", "/v1/embeddings", embeddings, openai_shape),
    Route("GET", "/v1/models", models, openai_shape),
)
