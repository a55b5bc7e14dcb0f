"""What handlers find in the application that serves them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from clipsrv.server.api.catalog import Catalog
from clipsrv.server.indexed import Indexed
from clipsrv.server.wire.bodies import BodyReader
from clipsrv.server.wire.documents import DocumentReader
from clipsrv.server.wire.inputs import Inputs
from clipsrv.server.wire.items import ItemReader
from clipsrv.server.wire.labelled import LabelledInputs
from clipsrv.server.wire.streamed import StreamedInputs
from clipsrv.server.workers.worker import State, Worker
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.stock import UNHEALTHY

EMBEDDER = web.AppKey("embedder", Embedder)
BODIES = web.AppKey("bodies", BodyReader)
DOCUMENTS = web.AppKey("documents", DocumentReader)
INPUTS = web.AppKey("inputs", Inputs)
ITEMS = web.AppKey("items", ItemReader)
LABELLED = web.AppKey("labelled", LabelledInputs)
INDEXED = web.AppKey("indexed", Indexed)
STREAMED = web.AppKey("streamed", StreamedInputs)
CATALOG = web.AppKey("catalog", Catalog)
OPENAPI = web.AppKey("openapi", dict[str, Any])
#: Where this process is one of several.
WORKER = web.AppKey("worker", Worker)


def own_state(app: web.Application) -> State:
    """What this process is, and what is wrong with its default model if it is unhealthy."""
    embedder = app[EMBEDDER]
    return embedder.status, embedder.fault if embedder.status == UNHEALTHY else None


def state(app: web.Application) -> State:
    """The same of the server, which may be several processes."""
    own = own_state(app)
    return app[WORKER].overall(own) if WORKER in app else own
