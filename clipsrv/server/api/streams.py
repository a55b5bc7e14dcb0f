"""/embed/batch answered line by line: images are taken from the body as they come, and told of as they are done."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from aiohttp import web

from clipsrv.server.api.state import BODIES, EMBEDDER, STREAMED
from clipsrv.server.http.middleware import CALLER, METRICS, OUT_OF_MEMORY, REPORT, failure_from, note
from clipsrv.server.http.request_ids import request_id
from clipsrv.server.wire.envelope import InvalidFieldError, NotAcceptableError
from clipsrv.server.wire.errors import Failure
from clipsrv.server.wire.ndjson import Lines
from clipsrv.server.wire.options import one_model
from clipsrv.server.wire.streamed import Arrived, StreamedImages
from clipsrv.serving.outcome import Finished
from clipsrv.serving.stream import Stream


async def embed_stream(request: web.Request, options: Mapping[str, str]) -> web.StreamResponse:
    """What is refused until the first image has come is answered as ever; what comes later the last line tells."""
    if request.query.get("on_error") == "fail":
        raise NotAcceptableError("on_error=fail needs another Accept: of a stream each line tells of its image alone.")
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller, options.get("model"))
    with bodies.in_flight.take(0, caller) as lease:
        arriving = request.app[STREAMED].open(request, lease)
        async with aclosing(arriving.read()) as images:
            started = time.monotonic()
            begun = [await anext(images)]
            read = time.monotonic() - started
            try:
                model = one_model(options.get("model"), arriving.model)
                with await embedder.open_stream(model=model, caller=caller) as stream:
                    lines = Lines(request, bodies.in_flight, options["encoding"])
                    await lines.begin(stream.visit.model.embedding_id, read)
                    return await _answer(request, stream, lines, _all(begun, images), arriving)
            finally:
                for one in begun:  # which nobody took
                    one.release()


async def _answer(
    request: web.Request, stream: Stream, lines: Lines, images: AsyncGenerator[Arrived], arriving: StreamedImages
) -> web.StreamResponse:
    visit, report, metrics = stream.visit, request[REPORT], request.app[METRICS]
    report.model, report.images, report.failed = visit.name, 0, 0
    failure: Failure | None = None
    with metrics.streaming() as outcome:
        try:
            async with aclosing(images), aclosing(stream.embed(images)) as results:
                async for done in results:
                    for one in done:
                        if isinstance(one.result, Finished):
                            report.timings.add(one.result.timings)
                    await lines.write(done)
                    report.images, report.failed = lines.count, lines.failed
            _check_late(request, arriving.model, visit.name)
        except ConnectionError:
            raise
        except MemoryError:
            failure = OUT_OF_MEMORY
        except Exception as error:  # noqa: BLE001 - the answer has begun: nobody else can tell it any more
            failure = failure_from(request, error)
        if failure is not None:
            note(request, failure)
        facts = {"dimensions": visit.model.manifest.dimensions, "model": visit.name}
        await lines.end(facts, failure, request_id(request))
        outcome.append("complete" if failure is None else "incomplete")
    return lines.response


async def _all(begun: list[Arrived], images: AsyncIterator[Arrived]) -> AsyncGenerator[Arrived]:
    while begun:
        yield begun.pop()
    async for image in images:
        yield image


def _check_late(request: web.Request, model: str | None, name: str) -> None:
    """A document may name its model after its images: then these were embedded already."""
    stock = request.app[EMBEDDER].stock
    if model is not None and stock.name(model) != name:
        raise InvalidFieldError("'model' must stand before 'images', or in the query, where another one is meant.")
