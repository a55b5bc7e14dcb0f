"""A route brings the shape of its errors: whatever refuses its request is told in that shape, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from clipsrv.server.http.middleware import (
    GUARD,
    METRICS,
    PROXIES,
    REQUESTS,
    answer_errors,
    keep_out,
    set_headers,
    track,
)
from clipsrv.server.http.proxies import Proxies
from clipsrv.server.http.routes import Route, add_routes
from clipsrv.server.http.security import Guard, make_rules
from clipsrv.server.metrics import Metrics
from clipsrv.server.wire.envelope import InvalidFieldError
from clipsrv.server.wire.errors import Failure
from clipsrv.serving.admission import Admission


def foreign_shape(failure: Failure, request_id: str) -> tuple[int, Mapping[str, Any]]:
    return failure.status, {"error": {"message": failure.message, "type": "invalid_request_error"}}


async def refuse(request: web.Request) -> web.Response:
    raise InvalidFieldError("Not so.")


async def fail(request: web.Request) -> web.Response:
    raise LookupError("secret")


@asynccontextmanager
async def asking(keys: tuple[str, ...] = ()) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application(middlewares=[track, answer_errors, keep_out])
    app[PROXIES] = Proxies()
    app[GUARD] = Guard(make_rules("127.0.0.1", "", "", keys=keys))
    app[METRICS], app[REQUESTS] = Metrics(), Admission(100, "requests")
    app.on_response_prepare.append(set_headers)
    add_routes(
        app,
        (
            Route("POST", "/foreign", refuse, foreign_shape),
            Route("POST", "/foreign/broken", fail, foreign_shape),
            Route("POST", "/own", refuse),
        ),
    )
    async with TestClient(TestServer(app)) as client:
        yield client


async def answered(client: TestClient[web.Request, web.Application], method: str, path: str) -> tuple[int, set[str]]:
    async with client.request(method, path) as response:
        assert response.headers["X-Request-Id"]
        return response.status, set((await response.json())["error"])


FOREIGN, OWN = {"message", "type"}, {"code", "message", "details"}


async def test_every_refusal_of_a_route_has_its_shape() -> None:
    async with asking() as client:
        assert await answered(client, "POST", "/foreign") == (400, FOREIGN)
        assert await answered(client, "POST", "/own") == (400, OWN)
        assert await answered(client, "GET", "/foreign") == (405, FOREIGN)
        assert await answered(client, "GET", "/own") == (405, OWN)
        assert await answered(client, "POST", "/nowhere") == (404, OWN)
    async with asking(("k" * 20,)) as client:
        assert await answered(client, "POST", "/foreign") == (401, FOREIGN)


async def test_what_nobody_foresaw_has_the_shape_too(caplog: pytest.LogCaptureFixture) -> None:
    async with asking() as client:
        assert await answered(client, "POST", "/foreign/broken") == (500, FOREIGN)
    assert "secret" in caplog.text
