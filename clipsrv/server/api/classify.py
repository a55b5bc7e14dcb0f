"""/classify: how well each of some labels fits an image, by the scores that the model was trained for."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from aiohttp import web

from clipsrv.models.scoring import LabelScore, ranked, scoring_of, similarities
from clipsrv.server.api.state import BODIES, EMBEDDER, LABELLED
from clipsrv.server.http.middleware import CALLER, REPORT
from clipsrv.server.http.routes import Route
from clipsrv.server.wire.options import one_model, read_options, require_json
from clipsrv.server.wire.replies import deliver, json_response, stamp_work
from clipsrv.serving.prompts import Prompt


async def classify(request: web.Request) -> web.Response:
    options = read_options(request, {}, free=("model",))
    require_json(request)
    embedder, bodies, caller = request.app[EMBEDDER], request.app[BODIES], request[CALLER]
    embedder.check_open(caller, options.get("model"))
    with bodies.hold(request, caller) as lease:
        started = time.monotonic()
        blob, labels, named = await request.app[LABELLED].read(request, lease)
        prompts = list(map(Prompt, labels.prompts, labels.labels))
        lease.extend(sum(sys.getsizeof(prompt.text) for prompt in prompts))  # each holds the template once more
        read = time.monotonic() - started
        image, texts = await embedder.embed_beside(
            blob, prompts, model=one_model(options.get("model"), named), caller=caller
        )
        request[REPORT].images, request[REPORT].texts = 1, len(prompts)
        del blob, prompts
        model, scoring, timings = image.model, scoring_of(image.model.manifest), image.timings
        timings.add(texts.timings)
        request[REPORT].timings, request[REPORT].model = timings, image.name
        (cosines,) = similarities(np.array(image.vectors, np.float32), np.array(texts.vectors, np.float32))
        answer: dict[str, Any] = {
            "labels": [_row(one) for one in ranked(labels.labels, cosines, scoring)],
            "scoring": scoring.kind,
            "model": image.name,
            "truncated": [labels.labels[place] for place in texts.truncated],
        }
        if texts.unknown_script:  # said only where it is so, as /embed/text does
            answer["unknown_script"] = [labels.labels[place] for place in texts.unknown_script]
        response = json_response(answer)
        stamp_work(response, model.embedding_id, read, timings)
        return await deliver(request, response, lease)


def _row(one: LabelScore) -> dict[str, Any]:
    """With as few digits as tell the float32 that the vectors were."""
    return {"label": one.label, "score": np.float32(one.score), "similarity": np.float32(one.similarity)}


ROUTES = (Route("POST", "/classify", classify),)
