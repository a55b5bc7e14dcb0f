"""The composition root: configuration to an application and what serves it. Its life is in lifecycle.py."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from clipsrv.config import Config
from clipsrv.errors import ShuttingDownError
from clipsrv.machine import give_memory_back
from clipsrv.models.library import Library
from clipsrv.models.model import Model
from clipsrv.server.allowance import addresses_left, check_room
from clipsrv.server.api import classify, guide, health, openai, openapi, search, weaviate
from clipsrv.server.api.catalog import Catalog
from clipsrv.server.api.state import (
    BODIES,
    CATALOG,
    DOCUMENTS,
    EMBEDDER,
    INDEXED,
    INPUTS,
    ITEMS,
    LABELLED,
    OPENAPI,
    STREAMED,
    state,
)
from clipsrv.server.http.connection import ConnectionLimits, Runner
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
from clipsrv.server.http.routes import add_routes
from clipsrv.server.http.security import Guard, make_rules, read_keys
from clipsrv.server.indexed import Indexed
from clipsrv.server.metrics import Metrics
from clipsrv.server.page import files as page
from clipsrv.server.page import gallery
from clipsrv.server.page.files import PAGE, read_page
from clipsrv.server.page.gallery import GALLERY, Gallery
from clipsrv.server.wire.bodies import BodyLimits, BodyReader
from clipsrv.server.wire.documents import DocumentLimits, DocumentReader
from clipsrv.server.wire.inputs import Inputs
from clipsrv.server.wire.items import ItemLimits, ItemReader
from clipsrv.server.wire.labelled import LabelledInputs
from clipsrv.server.wire.streamed import StreamedInputs, StreamLimits
from clipsrv.serving.admission import Admission
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.stock import HEALTHY
from clipsrv.settings import (
    image_limits,
    json_items,
    model_settings,
    offer_settings,
    serving_settings,
    texts_of_a_request,
)

#: Seconds to wait at the end for the threads to give the models back.
_PATIENCE = 0.25
#: Seconds without a request after which memory is given back.
_QUIET = 2.0
#: Where addresses are limited, bytes that a body must leave to answers, and to what others send in the meantime.
_SPARE = 32 * 2**20


def build_app(config: Config, library: Library) -> web.Application:
    """The application, no model loaded yet: its Embedder's `start` does that while the server already answers. All it
    has is given back when its runner is cleaned up.

    Raises ConfigError if the API keys or the trusted proxies cannot be read.
    """
    rules = make_rules(
        config.host,
        config.allowed_hosts,
        config.allowed_origins,
        keys=read_keys(config.api_keys, config.api_key_file),
        metrics_keys=read_keys(config.metrics_keys, setting="metrics_keys"),
        failures=config.auth_failures,
    )
    metrics, bodies = Metrics(), Admission(config.max_bytes_in_flight, "bytes of request bodies")
    embedder = Embedder(library, serving_settings(config), metrics)
    app = web.Application(middlewares=[track, answer_errors, keep_out])
    app[EMBEDDER] = embedder
    app[CATALOG] = Catalog(library)
    if config.index:
        app[INDEXED] = Indexed(config.index, config.deadline, config.max_queue)
    check = partial(check_room, _SPARE) if addresses_left() is not None else lambda: None
    app[BODIES] = BodyReader(_body_limits(config), bodies, check)
    app[DOCUMENTS] = DocumentReader(app[BODIES], _document_limits(config), embedder.workshop.parsing)
    app[INPUTS] = Inputs(
        app[BODIES], app[DOCUMENTS], max_images=config.max_images, max_texts=texts_of_a_request(config)
    )
    app[STREAMED] = StreamedInputs(app[BODIES], app[DOCUMENTS], _stream_limits(config))
    app[LABELLED] = LabelledInputs(app[BODIES], app[DOCUMENTS], max_labels=texts_of_a_request(config))
    most = ItemLimits(config.max_images, texts_of_a_request(config), config.queue_per_caller)
    app[ITEMS] = ItemReader(app[DOCUMENTS], most)
    app[OPENAPI] = openapi.describe(config)
    app[PROXIES] = Proxies.listed(config.trusted_proxies)
    app[GUARD], app[METRICS], app[REQUESTS] = Guard(rules), metrics, Admission(sys.maxsize, "requests")
    _watch(metrics, app, bodies)
    app.on_response_prepare.append(set_headers)
    app.on_shutdown.append(_stop)
    app.cleanup_ctx.extend((_keep_engines, _measure_lag, _give_memory_back))
    app[PAGE] = read_page() if config.page else {}
    of_the_page = (*page.ROUTES, *gallery.ROUTES) if config.page else ()
    if config.page and config.index:
        app[GALLERY] = Gallery(embedder, app[INDEXED], Path(config.index).parent, image_limits(config))
    of_others = (*openai.ROUTES, *weaviate.ROUTES)
    add_routes(app, (*guide.ROUTES, *classify.ROUTES, *search.ROUTES, *of_others, *health.ROUTES, *of_the_page))
    return app


async def start(app: web.Application) -> None:
    """Opens the index if there is one, loads the models named, and finds the one that made the index. Raises
    StartError, EngineError, ShuttingDownError."""
    if INDEXED in app:
        await app[INDEXED].open()
    await app[EMBEDDER].start()
    if INDEXED in app:
        await app[INDEXED].match(app[EMBEDDER])


def make_runner(app: web.Application, config: Config) -> Runner:
    """What serves `app` over connections within the configured limits."""
    limits = ConnectionLimits(config.max_connections, config.header_timeout, config.keep_alive, config.answer_timeout)

    def refused(status: int, code: str) -> None:
        app[METRICS].refused(code)
        app[METRICS].answered("unmatched", status, 0.0)

    return Runner(app, limits, refused)


def open_library(config: Config) -> Library:
    """The models that are served. Raises ConfigError, or ModelNotFoundError if one that is named has no folder."""
    return Library(Path(config.models_dir), offer_settings(config), model_settings(config))


def _body_limits(config: Config) -> BodyLimits:
    return BodyLimits(
        max_body_bytes=config.max_body_bytes,
        body_timeout=config.body_timeout,
        pause=config.header_timeout,
        min_rate=config.min_upload_rate,
    )


def _stream_limits(config: Config) -> StreamLimits:
    return StreamLimits(config.max_images_streamed, config.max_image_bytes, config.max_body_bytes)


def _document_limits(config: Config) -> DocumentLimits:
    return DocumentLimits(config.max_json_bytes, json_items(config))


def _watch(metrics: Metrics, app: web.Application, bodies: Admission) -> None:
    embedder, requests, workshop = app[EMBEDDER], app[REQUESTS], app[EMBEDDER].workshop
    cache = workshop.cache

    def facts(model: Model | None) -> dict[str, str]:
        if model is None:
            return {}
        return {"device": model.device, "precision": model.precision, "embedding_id": model.embedding_id}

    def models() -> dict[str, dict[str, str]]:
        loaded = embedder.stock.models
        return {name: facts(loaded.get(name)) for name in embedder.stock.states()}

    metrics.watch(
        {
            "clipsrv_inflight": ("Requests in work", lambda: requests.in_use),
            "clipsrv_slots_in_use": (
                "Slots in use: one for each image accepted and not yet answered, one for sixteen texts",
                lambda: workshop.slots.in_use,
            ),
            "clipsrv_slots": ("Slots there are", lambda: workshop.slots.capacity),
            "clipsrv_queue_images": ("Images and texts waiting for inference", lambda: embedder.queued),
            "clipsrv_body_bytes_inflight": ("Bytes of bodies held", lambda: bodies.in_use),
            "clipsrv_decode_pixels_inflight": ("Pixels being decoded", lambda: workshop.budget.in_use),
            "clipsrv_cache_bytes": ("Bytes of vectors kept", lambda: cache.size if cache else 0),
            "clipsrv_cache_vectors": ("Vectors kept", lambda: len(cache) if cache else 0),
            "clipsrv_model_ready": ("1 if /health says healthy", lambda: state(app)[0] == HEALTHY),
        },
        models,
    )


async def _stop(app: web.Application) -> None:
    """The end begins: what is still in work is answered 503, and then its connections are closed."""
    app[EMBEDDER].stop()
    if INDEXED in app:
        app[INDEXED].stop()


async def _keep_engines(app: web.Application) -> AsyncIterator[None]:
    yield
    with suppress(TimeoutError):  # a thread that hangs must not keep the process
        async with asyncio.timeout(_PATIENCE):
            await app[EMBEDDER].close()


async def _measure_lag(app: web.Application) -> AsyncIterator[None]:
    async with _beside(app[METRICS].measure_lag()):
        yield


async def _give_memory_back(app: web.Application) -> AsyncIterator[None]:
    """Whenever there was work and then none for a while: the C library keeps what large images have left."""

    requests, thread = app[REQUESTS], app[EMBEDDER].workshop.tokenizing

    async def keep_giving_back() -> None:
        while True:
            await requests.wait_taken()
            await requests.wait_idle()
            await asyncio.sleep(_QUIET)
            if not requests.in_use:
                with suppress(ShuttingDownError):
                    await thread.run(give_memory_back)

    async with _beside(keep_giving_back()):
        yield


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """A context beside which `work` goes on."""
    task = asyncio.create_task(work)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
