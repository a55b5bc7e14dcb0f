"""What an endpoint is: a method, a path, a handler, and the shape its errors have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from aiohttp import hdrs, web

from clipsrv.server.wire.errors import Shape, guide_shape

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    errors: Shape = guide_shape


#: The shapes of errors by path, so that an answer to another method has its route's too.
_SHAPES = web.AppKey("shapes", dict[str, Shape])


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    shapes = app[_SHAPES] = {}
    for route in routes:
        shapes[route.path] = route.errors
        add = app.router.add_get if route.method == hdrs.METH_GET else app.router.add_post  # with GET comes HEAD
        add(route.path, route.handler, expect_handler=_expect_nothing_yet)


def shape_of(request: web.Request) -> Shape:
    """How the errors of this request are told."""
    return request.app[_SHAPES].get(request.path, guide_shape)


async def _expect_nothing_yet(request: web.Request) -> None:
    """Leaves Expect: 100-continue to whoever reads the body: what refuses the request refuses it before the upload."""
