"""Vectors to response bodies: JSON, base64 in JSON, or a NumPy file, as the client asks. Knows nothing of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from clipsrv.runtime.vectors import Vectors, to_base64, to_npy
from clipsrv.server.wire.envelope import NotAcceptableError, UnknownOptionError

JSON, BASE64, NPY = "json", "base64", "npy"
_NPY_TYPE = "application/x-npy"


def read_options(request: web.Request, allowed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The query's options, the first value of each `allowed` where not given.

    Raises UnknownOptionError: a misspelt option must not silently change the answer.
    """
    options = {name: values[0] for name, values in allowed.items()}
    for name, value in request.query.items():
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise UnknownOptionError(f"Unknown query option {name[:40]!r}; known here: {known}.")
        if value not in allowed[name]:
            raise UnknownOptionError(f"{name}={value[:40]!r} is not one of {', '.join(allowed[name])}.")
        options[name] = value
    return options


def negotiate(request: web.Request, encoding: str) -> str:
    """json, base64 or npy from the query's encoding and the Accept header. Raises NotAcceptableError."""
    accept = request.headers.get("Accept", "*/*").lower()
    if _NPY_TYPE in accept:
        return NPY
    if not any(kind in accept for kind in ("*/*", "application/*", "application/json")):
        raise NotAcceptableError(f"Accept must allow application/json or {_NPY_TYPE}.")
    return encoding


def vectors_response(
    vectors: Sequence[Vectors | None], form: str, *, many: bool, extra: Mapping[str, Any]
) -> web.Response:
    """The body for one vector ({"embedding": ...}) or `many` ({"embeddings": [...], "count": n}), with `extra` keys.

    Floats are written with the fewest digits that read back as the same float32. A NumPy file has shape
    (n, dimensions) and rows of NaN for images that gave no vector.
    """
    if form == NPY:
        hole = np.full(extra["dimensions"], np.nan, np.float32)
        rows = np.stack([hole if row is None else row for row in vectors])
        return web.Response(body=to_npy(rows), content_type=_NPY_TYPE)
    values = [row if row is None or form == JSON else to_base64(row) for row in vectors]
    body = {"embeddings": values, "count": len(values), **extra} if many else {"embedding": values[0], **extra}
    return web.Response(body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")
