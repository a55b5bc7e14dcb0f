"""Vectors that are kept, as callers see it: over every protocol what was computed once is known, and said to be."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clipsrv.config import Config
from clipsrv.server.metrics import Metrics
from clipsrv.serving.memory import memory_bound
from tests.support.faulty import FaultyEncoder, HangingEncoder
from tests.support.model import CountingTexts, make_model, truth
from tests.support.serving import Client, Served, drawn, eventually, form_data, serving

BLOB = drawn(5)
KEPT = 2**20


def b64(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def counted(served: Served, name: str) -> float:
    """A sample of /metrics."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", rendered(served), re.MULTILINE)
    assert found, name
    return float(found[1])


def rendered(served: Served) -> str:
    metrics = served.embedder.stock._observer
    assert isinstance(metrics, Metrics)
    return metrics.render().decode()


#: How each protocol asks for one image, or one text, and where the vector is in its answer.
Ask = tuple[str, dict[str, Any], Callable[[Any], Any]]
IMAGES: dict[str, Ask] = {
    "form": ("/embed", {"data": form_data("image", [BLOB])}, lambda body: body["embedding"]),
    "raw": ("/embed", {"data": BLOB, "headers": {"Content-Type": "image/png"}}, lambda body: body["embedding"]),
    "JSON": ("/embed", {"json": {"image": b64(BLOB)}}, lambda body: body["embedding"]),
    "batch": ("/embed/batch", {"json": {"images": [b64(BLOB)]}}, lambda body: body["embeddings"][0]),
    "OpenAI": ("/v1/embeddings", {"json": {"input": {"image": b64(BLOB)}}}, lambda body: body["data"][0]["embedding"]),
    "Weaviate": ("/vectorize", {"json": {"images": [b64(BLOB)]}}, lambda body: body["imageVectors"][0]),
}
TEXTS: dict[str, Ask] = {
    "one": ("/embed/text", {"json": {"text": "a cat"}}, lambda body: body["embedding"]),
    "many": ("/embed/text", {"json": {"texts": ["a cat"]}}, lambda body: body["embeddings"][0]),
    "OpenAI": ("/v1/embeddings", {"json": {"input": "a cat"}}, lambda body: body["data"][0]["embedding"]),
    "Weaviate": ("/vectorize", {"json": {"texts": ["a cat"]}}, lambda body: body["textVectors"][0]),
}


async def test_an_image_and_a_text_are_computed_once_over_all_protocols() -> None:
    encoder, counting = FaultyEncoder(), CountingTexts()
    async with serving(replace(make_model(encoder), text_encoder=counting), cache_bytes=KEPT) as served:
        warm = counting.texts
        for asks in (IMAGES, TEXTS):
            found = set()
            for number, (path, options, read) in enumerate(asks.values()):
                if "data" in options and not isinstance(options["data"], bytes):
                    options = {"data": form_data("image", [BLOB])}  # a form can be sent once
                answer = await served.client.post(path, **options)
                assert answer.headers["X-Cache"] == ("hit" if number else "miss")
                found.add(np.float32(read(answer.json)).tobytes())
            assert len(found) == 1
        assert (sum(encoder.sizes), counting.texts - warm) == (1, 1)
        answer = await served.client.post("/classify", json={"image": b64(BLOB), "labels": ["a cat"], "template": "{}"})
        assert answer.headers["X-Cache"] == "hit"
        assert answer.json["labels"][0]["label"] == "a cat"
        assert (sum(encoder.sizes), counting.texts - warm) == (1, 1)
        assert counted(served, 'clipsrv_cache_items_total{outcome="hit"}') == len(IMAGES) + len(TEXTS)
        assert counted(served, 'clipsrv_cache_items_total{outcome="miss"}') == 2
        assert counted(served, "clipsrv_cache_vectors") == 2


async def test_an_answer_of_which_part_was_known_says_so_and_where_the_time_went() -> None:
    async with serving(cache_bytes=KEPT) as served:
        first = await served.client.post("/embed/batch", data=form_data("images", [BLOB, drawn(6)]))
        then = await served.client.post("/embed/batch", data=form_data("images", [drawn(6), drawn(7)]))
        last = await served.client.post("/embed/batch", data=form_data("images", [drawn(6), drawn(6)]))
        assert [answer.headers["X-Cache"] for answer in (first, then, last)] == ["miss", "partial", "hit"]
        np.testing.assert_allclose(last.json["embeddings"], [truth(drawn(6))] * 2, atol=1e-6)
        stages = dict(part.split(";dur=") for part in last.headers["Server-Timing"].split(", "))
        assert float(stages["cache"]) >= 0
        assert (float(stages["decode"]), float(stages["inference"])) == (0, 0)


@pytest.mark.parametrize("again", ["/embed?crop=0,0,20,20", "/embed?crop=0,0,20,21", "/embed"])
async def test_a_part_is_another_item_than_the_image_and_than_any_other_part(again: str) -> None:
    async with serving(cache_bytes=KEPT) as served:
        others = [path for path in ("/embed?crop=0,0,20,20", "/embed?crop=0,0,20,21", "/embed") if path != again]
        for path in others:
            assert (await served.post(path, BLOB)).headers["x-cache"] == "miss"
        assert (await served.post(again, BLOB)).headers["x-cache"] == "miss"
        assert (await served.post(again, BLOB)).headers["x-cache"] == "hit"


async def test_sixty_requests_at_once_for_one_image_have_it_computed_once() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), cache_bytes=KEPT) as served:
        encoder.shut()
        asking = [asyncio.create_task(served.post("/embed", BLOB)) for _ in range(60)]
        name = 'clipsrv_cache_items_total{outcome="%s"}'
        await eventually(lambda: counted(served, name % "miss") + counted(served, name % "shared") == 60)
        encoder.go_on.set()
        replies = await asyncio.gather(*asking)
        assert {reply.headers["x-cache"] for reply in replies} == {"miss"}
        assert len({reply.body for reply in replies}) == 1
        assert sum(encoder.sizes) == 1
        assert counted(served, name % "miss") == 1


async def test_a_caller_that_goes_takes_nothing_from_the_others() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), cache_bytes=KEPT) as served:
        encoder.shut()
        first = asyncio.create_task(served.post("/embed", BLOB))
        await asyncio.to_thread(encoder.entered.wait, 60)
        others = [asyncio.create_task(served.post("/embed", BLOB)) for _ in range(3)]
        await eventually(lambda: counted(served, 'clipsrv_cache_items_total{outcome="shared"}') == 3)
        first.cancel()
        await asyncio.wait([first])
        await eventually(lambda: served.embedder.workshop.slots.in_use == 3)
        encoder.go_on.set()
        for reply in await asyncio.gather(*others):
            np.testing.assert_allclose(reply.json["embedding"], truth(BLOB), atol=1e-6)
        assert sum(encoder.sizes) == 1


async def test_errors_are_told_anew_each_time(client: Client) -> None:
    for _ in range(3):
        answer = await client.post("/embed", data=form_data("image", [BLOB[:60]]))
        assert (answer.status, answer.json["error"]["code"]) == (422, "truncated_image")
        assert "X-Cache" not in answer.headers


async def test_without_a_cache_nothing_is_kept_or_said_to_be() -> None:
    encoder = FaultyEncoder()
    async with serving(make_model(encoder), cache_bytes=0) as served:
        for _ in range(2):
            answer = await served.client.post("/embed/batch", data=form_data("images", [BLOB, BLOB]))
            assert "X-Cache" not in answer.headers
            assert "cache" not in answer.headers["Server-Timing"]
        assert sum(encoder.sizes) == 4
        assert counted(served, "clipsrv_cache_bytes") == counted(served, "clipsrv_cache_vectors") == 0


async def test_the_bytes_kept_are_bounded_and_counted() -> None:
    async with serving(cache_bytes=20_000) as served:
        await served.client.post("/embed/text", json={"texts": [f"text {number}" for number in range(100)]})
        kept = counted(served, "clipsrv_cache_vectors")
        assert 0 < counted(served, "clipsrv_cache_bytes") <= 20_000
        assert kept + counted(served, "clipsrv_cache_evicted_total") == 100


def test_what_is_kept_counts_in_the_bound_of_memory() -> None:
    less, more = (memory_bound(Config(cache_bytes=size), 224) for size in (0, 12_345))
    assert more - less == 12_345
