"""The web page at /, and its files: read once, served as they are.

Knows nothing of models: the page asks what any client asks. What a browser may do for it is said in the headers here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

import orjson
from aiohttp import hdrs, web

from clipsrv.server.http.routes import Route
from clipsrv.server.http.security import PAGE_PATH
from clipsrv.server.wire.options import preferred
from clipsrv.server.wire.replies import JSON_TYPE

HTML_TYPE = "text/html"
_INDEX = "index.html"
_TYPES = {".html": HTML_TYPE, ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

#: Scripts, styles and answers of this server alone, images of its own or of what was dropped on the page; no code in
#: HTML, none made of text (but the address of the one worker), and no other page around this one.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types worker",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_ELSE = orjson.dumps(
    {
        "name": "clipsrv",
        "contract": "/openapi.json",
        "health": "/health",
        "models": "/models",
        "page": "this address, in a browser",
    }
)


class File(NamedTuple):
    """One file of the page, as it is sent."""

    content_type: str
    body: bytes


PAGE = web.AppKey("page", Mapping[str, File])


def read_page() -> dict[str, File]:
    """The files of the page by name."""
    found = {}
    for path in files("clipsrv.server.page").joinpath("static").iterdir():
        name = path.name
        found[name] = File(_TYPES[name[name.rindex(".") :]], path.read_bytes())
    return found


async def index(request: web.Request) -> web.Response:
    """The page for browsers, and where to look for everybody else."""
    if preferred(request.headers.getall(hdrs.ACCEPT, ()), (JSON_TYPE, HTML_TYPE)) == HTML_TYPE:
        response = _sent(request.app[PAGE][_INDEX])
    else:
        response = web.Response(body=_ELSE, content_type=JSON_TYPE)
    response.headers.add(hdrs.VARY, hdrs.ACCEPT)
    return response


async def file(request: web.Request) -> web.Response:
    found = request.app[PAGE].get(request.match_info["file"])
    if found is None:
        raise web.HTTPNotFound
    return _sent(found)


def _sent(found: File) -> web.Response:
    return web.Response(body=found.body, content_type=found.content_type, charset="utf-8", headers=_HEADERS)


ROUTES = (Route("GET", "/", index), Route("GET", PAGE_PATH + "{file}", file))
