"""Which status each failure has, and the one body shape all errors share. The only place that writes error bodies."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from clipsrv import errors
from clipsrv.server.wire import envelope

STATUS: Mapping[type[errors.ClipsrvError], int] = {
    envelope.InvalidRequestError: 400,
    errors.InvalidTextError: 400,
    envelope.RequestTimeoutError: 408,
    envelope.BodyTooLargeError: 413,
    envelope.TooManyImagesError: 413,
    envelope.TooManyTextsError: 413,
    envelope.TooManyPartsError: 413,
    envelope.UnsupportedMediaTypeError: 415,
    envelope.UnsupportedContentEncodingError: 415,
    envelope.NotAcceptableError: 406,
    envelope.UnauthorizedError: 401,
    envelope.ForbiddenError: 403,
    errors.TextTowerMissingError: 404,
    errors.ImageError: 422,
    errors.BadImagesError: 422,
    errors.OverloadedError: 429,
    errors.StartError: 500,
    errors.StartingError: 503,
    errors.ShuttingDownError: 503,
    errors.EngineError: 503,
    errors.DeadlineExceededError: 504,
    errors.ClipsrvError: 500,
}

#: Code and message of the statuses that aiohttp itself gives.
_HTTP_ERRORS = {
    400: ("invalid_request", "This is not a well-formed HTTP/1.1 request with a Host."),
    404: ("not_found", "There is no such endpoint; /openapi.json lists those there are."),
    405: ("method_not_allowed", "This endpoint takes another method; see Allow."),
    417: ("expectation_failed", "Only Expect: 100-continue is supported."),
}

#: Headers of every answer: vectors are nobody else's to keep, and JSON is never to be guessed to be HTML.
COMMON_HEADERS = {"Server": "clipsrv", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def new_request_id() -> str:
    return uuid.uuid4().hex


def status_of(error: errors.ClipsrvError) -> int:
    """The status of the nearest class in STATUS."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(
    status: int, code: str, message: str, *, request_id: str, details: Mapping[str, Any] | None = None
) -> web.Response:
    """The error body: code (stable), message (one sentence), details (possibly empty) and the request's id."""
    body = {"error": {"code": code, "message": message, "details": details or {}}, "request_id": request_id}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


def raw_response(status: int, code: str, message: str) -> bytes:
    """The bytes of an error response for a connection that has no request."""
    request_id = new_request_id()
    body = error_response(status, code, message, request_id=request_id).body
    assert isinstance(body, bytes)
    headers = {
        **COMMON_HEADERS,
        "X-Request-Id": request_id,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Retry-After": "2",
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


def response_of(error: errors.ClipsrvError, request_id: str) -> tuple[web.Response, str]:
    """The response to a domain failure and its code, with Retry-After where waiting helps."""
    code, details = error.code, dict(error.details)
    if isinstance(error, errors.BadImagesError):
        details = {"images": describe(error.bad)}
        codes = {one.error.code for one in error.bad}
        code = codes.pop() if len(codes) == 1 else error.code
    response = error_response(status_of(error), code, error.message, request_id=request_id, details=details)
    if isinstance(error, errors.OverloadedError):
        response.headers["Retry-After"] = f"{error.retry_after:.0f}"
    elif isinstance(error, errors.StartingError | errors.ShuttingDownError | errors.EngineError):
        response.headers["Retry-After"] = "2"
    if isinstance(error, envelope.UnauthorizedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, envelope.UnsupportedMediaTypeError):
        response.headers["Accept-Post"] = "multipart/form-data, application/json, image/*, application/octet-stream"
    if isinstance(error, envelope.UnsupportedContentEncodingError):
        response.headers["Accept-Encoding"] = "identity"
    return response, code


def response_of_http(error: web.HTTPException, request_id: str) -> tuple[web.Response, str]:
    """aiohttp's own refusals (404, 405, ...) in our body shape, and the code."""
    code, message = _HTTP_ERRORS.get(error.status, ("invalid_request", f"{error.reason}."))
    response = error_response(error.status, code, message, request_id=request_id)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response, code


def describe(bad: Sequence[errors.BadImage]) -> list[dict[str, Any]]:
    """Each bad image as clients see it: where it stood in the request, and why it cannot be used."""
    return [
        {"index": one.index, "code": one.error.code, "message": one.error.message, **one.error.details} for one in bad
    ]
