"""What the server says of itself: /health, /health/live, /models, /metrics, /openapi.json."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from clipsrv.server.api.catalog import Catalog
from clipsrv.server.api.state import CATALOG, EMBEDDER, OPENAPI, WORKER, state
from clipsrv.server.http.middleware import METRICS
from clipsrv.server.http.routes import Route
from clipsrv.server.wire.options import read_options
from clipsrv.serving.embedder import STARTING, Embedder
from clipsrv.serving.stock import HEALTHY, UNHEALTHY


async def health(request: web.Request) -> web.Response:
    read_options(request, {})
    embedder, catalog = request.app[EMBEDDER], request.app[CATALOG]
    status, fault = state(request.app)
    body: dict[str, Any] = {"status": status, "model": catalog.current}
    if embedder.model is not None:
        body |= catalog.running(embedder.model)
    if status == UNHEALTHY:
        body["fault"] = fault
    body["models"] = {name: _state(embedder, catalog, name, its) for name, its in embedder.stock.states().items()}
    if WORKER in request.app:
        body |= {"worker": request.app[WORKER].number, "workers": request.app[WORKER].workers}
    response = _json(body, 200 if status == HEALTHY else 503)
    if status == STARTING:
        response.headers["Retry-After"] = "2"
    return response


def _state(embedder: Embedder, catalog: Catalog, name: str, state: str) -> dict[str, Any]:
    """One model: its state, what is wrong with it, and what it runs as if it is loaded."""
    model, fault = embedder.stock.models.get(name), embedder.stock.fault_of(name)
    return {
        "status": state,
        **({"fault": fault} if fault else {}),
        **(catalog.running(model) if model else {}),
    }


async def live(request: web.Request) -> web.Response:
    return _json({"status": "live"})


async def metrics(request: web.Request) -> web.Response:
    app = request.app
    text = await app[WORKER].metrics() if WORKER in app else app[METRICS].render()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def models(request: web.Request) -> web.Response:
    read_options(request, {})
    return _json(request.app[CATALOG].describe(request.app[EMBEDDER].stock.models))


async def openapi(request: web.Request) -> web.Response:
    return _json(request.app[OPENAPI])


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


ROUTES = (
    Route("GET", "/health", health),
    Route("GET", "/health/live", live),
    Route("GET", "/models", models),
    Route("GET", "/metrics", metrics),
    Route("GET", "/openapi.json", openapi),
)
