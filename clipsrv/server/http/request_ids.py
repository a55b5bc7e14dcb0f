"""The id of a request: the client's own if it is sane, else one made for it."""

from __future__ import annotations

import re

from aiohttp import web

from clipsrv.server.wire.errors import new_request_id

_REQUEST_ID = web.RequestKey("request_id", str)
_SANE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id(request: web.Request) -> str:
    """X-Request-Id if the client sent a sane one; the same at every call."""
    if _REQUEST_ID not in request:
        sent = request.headers.get("X-Request-Id", "")
        request[_REQUEST_ID] = sent if _SANE.fullmatch(sent) else new_request_id()
    return request[_REQUEST_ID]
