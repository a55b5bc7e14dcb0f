"""Which status each failure has, and how it is told: a Failure in the shape its route speaks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from clipsrv import errors
from clipsrv.server.wire import envelope
from clipsrv.serving.history import TRY_AGAIN_AFTER

STATUS: Mapping[type[errors.ClipsrvError], int] = {
    envelope.InvalidRequestError: 400,
    errors.InvalidTextError: 400,
    errors.InvalidLabelsError: 400,
    errors.DimensionsNotOfferedError: 400,
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
    errors.ModelNotOfferedError: 404,
    errors.TextTowerMissingError: 404,
    errors.NoIndexError: 404,
    errors.OriginalError: 404,
    errors.ModelUnavailableError: 503,
    errors.IndexUnavailableError: 503,
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
    405: ("method_not_allowed", "This endpoint takes {allowed}."),
    417: ("expectation_failed", "Only Expect: 100-continue is supported."),
}

#: What an error tells in a header of its own.
_RETRY = {"Retry-After": "2"}
#: As often as a model that could not be loaded is tried again.
_LATER = {"Retry-After": f"{TRY_AGAIN_AFTER:.0f}"}
_HEADERS: Mapping[type[BaseException], Mapping[str, str]] = {
    errors.StartingError: _RETRY,
    errors.ShuttingDownError: _RETRY,
    errors.EngineError: _RETRY,
    errors.ModelUnavailableError: _LATER,
    errors.IndexUnavailableError: _LATER,
    envelope.UnauthorizedError: {"WWW-Authenticate": "Bearer"},
    envelope.UnsupportedMediaTypeError: {
        "Accept-Post": "multipart/form-data, application/json, image/*, application/octet-stream"
    },
    envelope.UnsupportedContentEncodingError: {"Accept-Encoding": "identity"},
}

#: Bad images that one message names.
_NAMED = 8
#: Headers of every answer: vectors are nobody else's to keep, and JSON is never to be guessed to be HTML.
COMMON_HEADERS = {"Server": "clipsrv", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def new_request_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Failure:
    """What an error answer says, whatever its shape: status, code (stable), one sentence, details, its own headers."""

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


#: A failure and the request's id to the status and the JSON body of the answer. Each route names its own.
Shape = Callable[[Failure, str], tuple[int, Mapping[str, Any]]]


def guide_shape(failure: Failure, request_id: str) -> tuple[int, Mapping[str, Any]]:
    """The shape of everything that names no other."""
    error = {"code": failure.code, "message": failure.message, "details": failure.details}
    return failure.status, {"error": error, "request_id": request_id}


def in_words(failure: Failure, field: str) -> str:
    """All that a failure says in one message, for shapes without details: bad images by their places in `field`."""
    bad = failure.details.get("images", ())
    told = [f"{field}[{one['index']}]: {one['message']}" for one in bad[:_NAMED]]
    more = [f"And {len(bad) - _NAMED:,} more."] if len(bad) > _NAMED else []
    return " ".join(told + more) or failure.message


def error_response(failure: Failure, request_id: str, shape: Shape = guide_shape) -> web.Response:
    status, body = shape(failure, request_id)
    response = web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
    response.headers.update(failure.headers)
    return response


def raw_response(failure: Failure) -> bytes:
    """The bytes of an error response for a connection that has no request."""
    request_id = new_request_id()
    response = error_response(failure, request_id)
    assert isinstance(response.body, bytes)
    headers = {
        **COMMON_HEADERS,
        **response.headers,
        "X-Request-Id": request_id,
        "Content-Length": str(len(response.body)),
        "Retry-After": "2",
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {failure.status} {HTTPStatus(failure.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("ascii") + response.body


def status_of(error: errors.ClipsrvError) -> int:
    """The status of the nearest class in STATUS."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def failure_of(error: errors.ClipsrvError) -> Failure:
    """A domain failure, with Retry-After where waiting helps."""
    code, details = error.code, dict(error.details)
    if isinstance(error, errors.BadImagesError):
        details = {"images": describe(error.bad)}
        codes = {one.error.code for one in error.bad}
        code = codes.pop() if len(codes) == 1 else error.code
    headers = next((_HEADERS[kind] for kind in type(error).__mro__ if kind in _HEADERS), {})
    if isinstance(error, errors.OverloadedError):
        headers = {"Retry-After": f"{error.retry_after:.0f}"}
    return Failure(status_of(error), code, error.message, details, headers)


def failure_of_http(error: web.HTTPException) -> Failure:
    """aiohttp's own refusals: 404, 405, ..."""
    code, message = _HTTP_ERRORS.get(error.status, ("invalid_request", f"{error.reason}."))
    if not isinstance(error, web.HTTPMethodNotAllowed):
        return Failure(error.status, code, message)
    message = message.format(allowed=" or ".join(sorted(error.allowed_methods)))
    return Failure(error.status, code, message, headers={"Allow": error.headers["Allow"]})


def describe(bad: Sequence[errors.BadImage]) -> list[dict[str, Any]]:
    """Each bad image as clients see it: where it stood in the request, and why it cannot be used."""
    return [
        {"index": one.index, "code": one.error.code, "message": one.error.message, **one.error.details} for one in bad
    ]
