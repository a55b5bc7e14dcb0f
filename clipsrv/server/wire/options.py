"""What a caller asks of the answer: the query's options, and the forms its Accept allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from clipsrv.server.wire.envelope import NotAcceptableError, UnknownOptionError
from clipsrv.server.wire.replies import NPY, NPY_TYPE


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
    if NPY_TYPE in accept:
        return NPY
    if not any(kind in accept for kind in ("*/*", "application/*", "application/json")):
        raise NotAcceptableError(f"Accept must allow application/json or {NPY_TYPE}.")
    return encoding
