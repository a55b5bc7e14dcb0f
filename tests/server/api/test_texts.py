"""The guide's /embed/text: texts in the images' space, in order, cut ones named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from clipsrv.models.model import Model
from tests.support.model import DIMENSIONS
from tests.support.serving import Client

Serve = Callable[..., Awaitable[Client]]


async def test_texts_have_vectors_in_the_same_space(client: Client, model: Model) -> None:
    answer = await client.post("/embed/text", json={"text": "a red dress"})
    assert {**answer.json, "embedding": 0} == {
        "embedding": 0,
        "dimensions": DIMENSIONS,
        "model": "tiny",
        "truncated": False,
    }
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    vector = model.text_encoder.embed(model.tokenizer.encode("a red dress").ids[None])[0]
    np.testing.assert_allclose(np.float32(answer.json["embedding"]), vector, atol=1e-6)


async def test_several_texts_are_answered_in_order_and_cut_ones_named(client: Client) -> None:
    texts = ["a dog", "word " * 200, "", "赤いドレス"]
    answer = await client.post("/embed/text", json={"texts": texts})
    assert (answer.json["count"], answer.json["truncated"]) == (4, [1])
    for text, vector in zip(texts, answer.json["embeddings"], strict=True):
        alone = await client.post("/embed/text", json={"text": text})
        np.testing.assert_allclose(np.float32(alone.json["embedding"]), np.float32(vector), atol=1e-6)


async def test_texts_without_a_letter_that_the_model_reads_are_named_counted_and_logged_once(
    serve_here: Serve, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    english = replace(model, manifest=replace(model.manifest, source={**model.manifest.source, "languages": "en"}))
    client = await serve_here(lambda: english)
    texts = ["a dog", "赤いドレス", "猫 cat", "ねこ"]
    several = await client.post("/embed/text", json={"texts": texts})
    assert (several.status, several.json["unknown_script"]) == (200, [1, 3])
    alone = [await client.post("/embed/text", json={"text": text}) for text in texts]
    assert [answer.json.get("unknown_script") for answer in alone] == [None, True, None, True]
    assert "clipsrv_texts_unknown_script_total 4.0" in (await client.get("/metrics")).body.decode()
    (line,) = [record.getMessage() for record in caplog.records if "a letter that it reads" in record.getMessage()]
    assert line.startswith("tiny knows English, and texts came without a letter that it reads (1)")
    assert "ねこ" not in caplog.text
    assert (await client.get("/models")).json["details"]["tiny"]["languages"] == ["en"]


async def test_of_a_model_whose_languages_nobody_has_told_nothing_is_said(client: Client) -> None:
    answer = await client.post("/embed/text", json={"texts": ["赤いドレス"]})
    assert "unknown_script" not in answer.json
    assert "clipsrv_texts_unknown_script_total 0.0" in (await client.get("/metrics")).body.decode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "unexpected_field"),
        ({"text": "a", "texts": ["b"]}, "unexpected_field"),
        ({"text": 5}, "invalid_field"),
        ({"texts": ["a", None]}, "invalid_field"),
        ({"texts": []}, "empty_batch"),
    ],
)
async def test_texts_that_are_not_as_documented_are_refused(client: Client, body: object, code: str) -> None:
    answer = await client.post("/embed/text", json=body)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


async def test_too_many_texts_are_refused(serve_here: Serve) -> None:
    client = await serve_here(max_texts=2)
    answer = await client.post("/embed/text", json={"texts": ["a"] * 3})
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_many_texts")
    assert answer.json["error"]["details"] == {"limit": 2}


async def test_without_text_tower_texts_are_not_found(serve_here: Serve) -> None:
    client = await serve_here(text=False)
    answer = await client.post("/embed/text", json={"text": "a"})
    assert (answer.status, answer.json["error"]["code"]) == (404, "no_text_tower")
    assert (await client.get("/health")).json["text"] is False
