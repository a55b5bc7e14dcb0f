"""Around every request: an id, one log line, errors in the one shape, strangers kept out. Knows no endpoint."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from aiohttp import hdrs, web

from clipsrv.errors import ClipsrvError, OutOfMemoryError
from clipsrv.server.http.connection import OTHER_VERSION
from clipsrv.server.http.proxies import Proxies
from clipsrv.server.http.request_ids import request_id
from clipsrv.server.http.routes import Handler, shape_of
from clipsrv.server.http.security import Guard
from clipsrv.server.logs import fields
from clipsrv.server.metrics import Metrics
from clipsrv.server.wire.envelope import InvalidRequestError
from clipsrv.server.wire.errors import (
    COMMON_HEADERS,
    Failure,
    error_response,
    failure_of,
    failure_of_http,
)
from clipsrv.serving.admission import Admission
from clipsrv.serving.outcome import Timings

logger = logging.getLogger("clipsrv.access")

REQUESTS = web.AppKey("requests", Admission)
METRICS = web.AppKey("metrics", Metrics)
GUARD = web.AppKey("guard", Guard)
PROXIES = web.AppKey("proxies", Proxies)
CALLER = web.RequestKey("caller", str)
OUT_OF_MEMORY = failure_of(OutOfMemoryError("Not enough memory for this request now. Send less at once, or later."))
#: The caller had gone before it was answered; never sent.
_GONE = 499


@dataclass
class Report:
    """What is known of a request once it is answered, for its line in the log."""

    client: str
    code: str | None = None
    model: str | None = None
    images: int | None = None
    texts: int | None = None
    failed: int | None = None
    timings: Timings = field(default_factory=Timings)


REPORT = web.RequestKey("report", Report)


@web.middleware
async def track(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts the request as in work, and logs it in one line when it is done."""
    started, status = time.monotonic(), _GONE
    request[REPORT] = Report(request.app[PROXIES].caller(request))
    with request.app[REQUESTS].take(1):
        try:
            response = await handler(request)
            status = response.status
        except ConnectionError:
            response = web.Response(status=_GONE)
        finally:
            _record(request, status, time.monotonic() - started)
    if not request.content.is_eof():  # the connection cannot carry another request
        response.force_close()
    return response


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tells every failure in its route's shape; what nobody foresaw becomes 500 with its traceback in the log only."""
    try:
        return await handler(request)
    except MemoryError:
        failure = OUT_OF_MEMORY  # told below, where nothing holds what took the memory
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 - told by its kind
        failure = failure_from(request, error)
    note(request, failure)
    return error_response(failure, request_id(request), shape_of(request))


def failure_from(request: web.Request, error: Exception) -> Failure:
    """What is told of an error, whatever it is."""
    if isinstance(error, ClipsrvError):
        return failure_of(error)
    if isinstance(error, web.HTTPException):
        return failure_of_http(error)
    logger.error("request failed", exc_info=error, extra=fields(request_id=request_id(request)))
    message = "Something went wrong inside the server; its log has the details under this request id."
    return Failure(500, "internal", message)


def note(request: web.Request, failure: Failure) -> None:
    """Counts a failure, and has it in the request's line of the log."""
    request[REPORT].code = failure.code
    request.app[METRICS].refused(failure.code)


@web.middleware
async def keep_out(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses strangers and what cannot be answered, before anything of the body is read."""
    expected = request.headers.get(hdrs.EXPECT, "100-continue")
    if OTHER_VERSION in request:
        raise InvalidRequestError(f"{request[OTHER_VERSION]} is not spoken here: send HTTP/1.1.")
    if request.version >= (1, 1) and hdrs.HOST not in request.headers:
        raise web.HTTPBadRequest
    request[CALLER] = request.app[GUARD].admit(request, request[REPORT].client)
    if request.method == hdrs.METH_OPTIONS and request.app[GUARD].cors_headers(request):
        return web.Response(status=204)
    if expected.lower() != "100-continue":
        raise web.HTTPExpectationFailed
    return await handler(request)


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every response."""
    kept = response.headers.get(hdrs.CACHE_CONTROL)
    response.headers.update(COMMON_HEADERS)
    if kept is not None:  # a handler that says for how long its answer is true knows better
        response.headers[hdrs.CACHE_CONTROL] = kept
    response.headers["X-Request-Id"] = request_id(request)
    response.headers.update(request.app[GUARD].cors_headers(request))


def _record(request: web.Request, status: int, seconds: float) -> None:
    resource, report, metrics = request.match_info.route.resource, request[REPORT], request.app[METRICS]
    route = resource.canonical if resource else "unmatched"
    metrics.answered(route, status, seconds)
    if status == _GONE and not request.content.is_eof():
        metrics.abandoned("upload")
    facts = {
        "request_id": request_id(request),
        "method": request.method[:20],
        "route": route,
        "status": status,
        "code": report.code,
        "client": report.client,
        "bytes_in": request.content_length,
        "model": report.model,
        "images": report.images,
        "texts": report.texts,
        "failed": report.failed,
        "cached": report.timings.hits or None,
        "decode_ms": _milliseconds(report.timings.decode),
        "queue_ms": _milliseconds(report.timings.queue),
        "infer_ms": _milliseconds(report.timings.inference),
        "total_ms": _milliseconds(seconds),
    }
    known = {name: value for name, value in facts.items() if value is not None}
    logger.info("request", extra=fields(**known))


def _milliseconds(seconds: float) -> float | None:
    return round(1000 * seconds, 1) if seconds else None
