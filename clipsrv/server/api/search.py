"""/search: the images of the index that are nearest to an image or a text, by the model that made the index."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from aiohttp import web

from clipsrv.errors import NoIndexError
from clipsrv.server.api.search_schema import LIMIT, MOST
from clipsrv.server.api.state import BODIES, EMBEDDER, INDEXED, INPUTS
from clipsrv.server.http.middleware import CALLER, REPORT
from clipsrv.server.http.routes import Route
from clipsrv.server.wire.crops import CROP, crop_of_query, cropped
from clipsrv.server.wire.envelope import InvalidFieldError
from clipsrv.server.wire.options import one_model, read_options, require_json, whole_number
from clipsrv.server.wire.replies import deliver, json_response, stamp_work


async def search(request: web.Request) -> web.Response:
    if INDEXED not in request.app:
        raise NoIndexError("This server has no index to search; it has one if it is started with --index.")
    options = read_options(request, {}, free=("model", "limit", CROP))
    require_json(request)
    limit, region = whole_number(options, "limit", LIMIT, 1, MOST), crop_of_query(options.get(CROP))
    embedder, indexed, caller = request.app[EMBEDDER], request.app[INDEXED], request[CALLER]
    embedder.check_open(caller, indexed.model)
    with request.app[BODIES].hold(request, caller) as lease:
        started = time.monotonic()
        asked = await request.app[INPUTS].either(request, lease)
        (item,), named = asked.items, one_model(options.get("model"), asked.model)
        if named is not None and embedder.stock.name(named) != indexed.model:
            raise InvalidFieldError(f"The index was made by {indexed.model}, and no other model can search it.")
        read = time.monotonic() - started
        if isinstance(item, str) and region is not None:
            raise InvalidFieldError("A text has no part to crop.")
        item = item if isinstance(item, str) else cropped(item, region)
        outcome = await embedder.embed_items([item], model=indexed.model, caller=caller)
        request[REPORT].texts, request[REPORT].images = (1, None) if isinstance(item, str) else (None, 1)
        del asked, item
        request[REPORT].timings, request[REPORT].model = outcome.timings, outcome.name
        (vector,) = outcome.vectors
        assert vector is not None
        began = time.monotonic()
        found = await indexed.nearest(vector, outcome.model.embedding_id, limit, caller)
        results = [{"id": one.item.id, "path": one.item.path, "score": np.float32(one.score)} for one in found]
        answer: dict[str, Any] = {"results": results, "model": outcome.name}
        if outcome.truncated:  # said only where it is so, as is the other
            answer["truncated"] = True
        if outcome.unknown_script:
            answer["unknown_script"] = True
        response = json_response(answer)
        searched = time.monotonic() - began
        stamp_work(response, outcome.model.embedding_id, read, outcome.timings, search=searched)
        return await deliver(request, response, lease)


ROUTES = (Route("POST", "/search", search),)
