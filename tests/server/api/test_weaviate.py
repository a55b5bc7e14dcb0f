"""Weaviate's protocol, asked as its database asks: Go's JSON without a Content-Type, null for an empty list."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest

from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors
from tests.support.model import truth
from tests.support.serving import Reply, Served, assert_as_before, drawn, make_model, part, request, serving


async def vectorize(served: Served, **body: Any) -> Reply:
    """As the module multi2vec-clip of Weaviate sends it."""
    head = ("User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip")
    return await served.send(request("POST", "/vectorize", json.dumps(body).encode(), *head))


def encoded(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def text_vector(model: Model, text: str) -> Vectors:
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    return model.text_encoder.embed(model.tokenizer.encode(text).ids[None])[0]


def message(reply: Reply) -> str:
    """The message of an error in Weaviate's shape, which its module decodes as one string."""
    assert set(reply.json) == {"error"}
    assert isinstance(reply.json["error"], str)
    return reply.json["error"]


async def test_texts_and_images_have_each_its_own_vector(model: Model) -> None:
    blobs, texts = [drawn(seed) for seed in range(3)], ["a dog", "a cat", "", "赤いドレス"]
    async with serving() as served:
        reply = await vectorize(served, texts=texts, images=[encoded(blob) for blob in blobs])
        assert (reply.status, set(reply.json)) == (200, {"textVectors", "imageVectors"})
        np.testing.assert_allclose(reply.json["textVectors"], [text_vector(model, one) for one in texts], atol=1e-6)
        np.testing.assert_allclose(reply.json["imageVectors"], [*map(truth, blobs)], atol=1e-6)
        assert reply.headers["X-Embedding-Id"] == model.embedding_id


@pytest.mark.parametrize("nothing", [None, []])
async def test_either_may_be_empty_as_go_writes_it(nothing: Any) -> None:
    async with serving() as served:
        texts = (await vectorize(served, texts=["a"], images=nothing)).json
        assert (len(texts["textVectors"]), texts["imageVectors"]) == (1, [])
        images = (await vectorize(served, texts=nothing, images=[encoded(drawn(1))])).json
        assert (images["textVectors"], len(images["imageVectors"])) == ([], 1)
        neither = await vectorize(served, texts=nothing, images=nothing)
        assert (neither.status, neither.json) == (200, {"textVectors": [], "imageVectors": []})


async def test_every_refusal_is_one_string_that_the_database_can_show() -> None:
    good = encoded(drawn(1))
    async with serving(max_images=2, max_texts=3) as served:
        cases = [
            (await vectorize(served, images=[good, "AAAA"]), 422, "images[1]: "),
            (await vectorize(served, texts=["a"], images=["https://a.example/b.png"]), 400, "images[0]: A URL"),
            (await vectorize(served, texts="a"), 400, "'texts' must be a list"),
            (await vectorize(served, texts=[1]), 400, "'texts' must be a list"),
            (await vectorize(served, images=[["a"]]), 400, "'images' must be a list"),
            (await vectorize(served, texts=["a"] * 4), 413, "4 texts"),
            (await vectorize(served, images=[good] * 3), 413, "more than 2 images"),
            (await vectorize(served, texts=["a"], model="another"), 404, "there are: tiny"),
            (await served.send(request("POST", "/vectorize?model=another", b"{}")), 404, "there are: tiny"),
            (await served.send(request("POST", "/vectorize", b"[")), 400, "not valid JSON"),
            (await served.send(request("GET", "/vectorize", None)), 405, "takes POST."),
            (await served.form(part(b"x"), path="/vectorize"), 415, "send JSON with -H"),
        ]
        for reply, status, words in cases:
            assert reply.status == status
            assert words in message(reply)
        await assert_as_before(served)
    async with serving(api_keys="k" * 20) as served:
        reply = await vectorize(served, texts=["a"])
        assert (reply.status, message(reply) != "") == (401, True)


async def test_it_is_ready_once_it_serves_and_no_longer_once_it_stops() -> None:
    async with serving(wait=False, api_keys="k" * 20) as served:
        early = await served.get("/.well-known/ready")
        assert (early.status, message(early), early.headers["Retry-After"]) == (503, "The server is starting.", "2")
        assert (await served.get("/.well-known/live")).status == 204
        await served.embedder.start()
        ready = await served.get("/.well-known/ready")
        assert (ready.status, ready.body) == (204, b"")
        served.embedder.drain()
        assert (await served.get("/.well-known/ready")).status == 503
        assert (await served.get("/.well-known/live")).status == 204
        assert (await served.get("/meta")).status == 401


async def test_meta_tells_of_the_model_that_runs() -> None:
    async with serving(wait=False) as served:
        assert (await served.get("/meta")).json == {"model": "tiny"}
        await served.embedder.start()
        meta = (await served.get("/meta")).json
    assert (meta["model"], meta["dimensions"], meta["embedding_id"]) == ("tiny", 64, make_model().embedding_id)


async def test_objects_that_are_imported_at_once_swap_no_vector(model: Model) -> None:
    async with serving() as served:

        async def one(number: int) -> None:
            blob = drawn(number)
            reply = (await vectorize(served, texts=[f"object {number}"], images=[encoded(blob)])).json
            np.testing.assert_allclose(reply["imageVectors"], [truth(blob)], atol=1e-6)
            np.testing.assert_allclose(reply["textVectors"], [text_vector(model, f"object {number}")], atol=1e-6)

        await asyncio.gather(*map(one, range(60)))
