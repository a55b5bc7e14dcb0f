"""Several models over HTTP: which one a request names, and what the server says of each."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from clipsrv.models.library import Library
from clipsrv.settings import ModelSettings, OfferSettings
from tests.support.model import write_model
from tests.support.photos import drawn
from tests.support.serving import Reply, Served, part, serving
from tests.support.wire import request

GOOD, JSON = drawn(1), "application/json"


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one`; `other`, whose vectors are the negative of its; `mute`, without a text tower; `broken`."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "one")
    write_model(folder / "other", weight=-1.0)
    write_model(folder / "mute", text=False)
    write_model(folder / "broken", text=False)
    (folder / "broken" / "vision.fp32.onnx").write_bytes(b"no")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(models_dir: Path) -> AsyncIterator[Served]:
    offer = OfferSettings(("one",), True, {"text-embedding-3-small": "other", "openai/clip": "one"})
    library = Library(models_dir, offer, ModelSettings("cpu", threads=1))
    async with serving(library, model="one", models_dir=str(models_dir)) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


def vector(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    return np.array(reply.json["embedding"])


async def test_the_query_or_the_field_of_json_names_the_model_in_every_form(served: Served) -> None:
    one = vector(await served.post("/embed", GOOD))
    named = {
        "raw": await served.post("/embed?model=other", GOOD),
        "an alias": await served.post("/embed?model=text-embedding-3-small", GOOD),
        "form": await served.form(part(GOOD, "image"), path="/embed?model=other"),
        "field": await served.post("/embed", body(image=base64(GOOD), model="other"), JSON),
        "both": await served.post("/embed?model=other", body(model="other", image=base64(GOOD)), JSON),
    }
    for reply in named.values():
        assert reply.json["model"] == "other"
        np.testing.assert_allclose(vector(reply), -one, atol=1e-6)
    batch = await served.post("/embed/batch", body(images=[base64(GOOD)] * 2, model="other"), JSON)
    np.testing.assert_allclose(batch.json["embeddings"], [-one, -one], atol=1e-6)
    again = await served.post("/embed?model=openai/clip", GOOD)
    assert again.json["model"] == "one"
    np.testing.assert_allclose(vector(again), one, atol=1e-6)


async def test_every_protocol_names_a_model_by_its_folder_whatever_it_was_called_when_it_was_made(
    tmp_path: Path,
) -> None:
    (write_model(tmp_path / "made")).rename(tmp_path / "moved")
    library = Library(tmp_path, OfferSettings(("moved",)), ModelSettings("cpu", threads=1))
    async with serving(library, model="moved", models_dir=str(tmp_path)) as running:
        replies = [
            await running.post("/embed", GOOD),
            await running.post("/embed/text", body(text="a"), JSON),
            await running.post("/classify", body(image=base64(GOOD), labels=["a"]), JSON),
            await running.post("/v1/embeddings", body(input="a"), JSON),
            await running.get("/health"),
        ]
        assert {reply.json["model"] for reply in replies} == {"moved"}
        size = await running.post("/v1/embeddings", body(input="a", dimensions=7), JSON)
        assert size.json["error"]["message"].startswith("moved has vectors of 64 dimensions")


async def test_texts_go_to_the_model_they_name(served: Served) -> None:
    texts = await served.post("/embed/text", body(texts=["a", "b"], model="other"), JSON)
    assert (texts.json["model"], texts.json["count"]) == ("other", 2)
    alone = await served.post("/embed/text?model=other", body(text="a"), JSON)
    assert alone.json["embedding"] == pytest.approx(texts.json["embeddings"][0], abs=1e-6)
    mute = await served.post("/embed/text", body(text="a", model="mute"), JSON)
    assert (mute.status, mute.json["error"]["code"]) == (404, "no_text_tower")


async def test_labels_are_scored_by_the_model_that_is_named(served: Served) -> None:
    fields = {"image": base64(GOOD), "labels": ["a", "b"]}
    one = (await served.post("/classify", body(**fields), JSON)).json
    for reply in (
        await served.post("/classify?model=other", body(**fields), JSON),
        await served.post("/classify", body(**fields, model="other"), JSON),
        await served.form(
            part(GOOD, "image"), part(b"a", "labels"), part(b"b", "labels"), path="/classify?model=other"
        ),
    ):
        assert reply.json["model"] == "other"
        likeness = {row["label"]: row["similarity"] for row in reply.json["labels"]}
        assert {row["label"]: -row["similarity"] for row in one["labels"]} == pytest.approx(likeness, abs=1e-6)


@pytest.mark.parametrize("model", ["nothing", "", "ONE", "../one", "one ", "a" * 300, "日本語"])
async def test_a_model_that_is_not_served_is_404_with_the_names_of_those_that_are(served: Served, model: str) -> None:
    reply = await served.post("/embed/text", body(text="a", model=model), JSON)
    error = reply.json["error"]
    assert (reply.status, error["code"]) == (404, "model_not_found")
    assert "there are: one, demo, broken, mute, other" in error["message"]
    assert len(error["message"]) < 300


async def test_a_model_that_is_not_served_is_refused_before_the_body_is_read(served: Served) -> None:
    head = request("POST", "/embed?model=nothing", b"", "Content-Type: image/png", "Expect: 100-continue")
    reply = await served.send(head.replace(b"Content-Length: 0", b"Content-Length: 1000000"))
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("model", [None, 1, ["one"], {"name": "one"}, True])
async def test_a_model_that_is_no_name_is_400(served: Served, model: object) -> None:
    for fields in ({"text": "a"}, {"texts": ["a"]}, {"image": base64(GOOD)}):
        path = "/embed" if "image" in fields else "/embed/text"
        reply = await served.post(path, body(model=model, **fields), JSON)
        assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_field")


async def test_two_names_in_one_request_are_400_unless_they_are_the_same(served: Served) -> None:
    differing = await served.post("/embed/text?model=one", body(text="a", model="other"), JSON)
    assert (differing.status, differing.json["error"]["code"]) == (400, "invalid_field")
    twice = await served.post("/embed?model=one&model=other", GOOD)
    assert (twice.status, twice.json["error"]["code"]) == (400, "unknown_option")
    assert (await served.post("/embed?model=one&model=one", GOOD)).status == 200


async def test_a_model_in_a_form_is_a_field_that_is_not_expected(served: Served) -> None:
    reply = await served.form(part(GOOD, "image"), part(b"other", "model"))
    assert (reply.status, reply.json["error"]["code"]) == (400, "unexpected_field")


async def test_a_model_that_cannot_be_loaded_is_503_without_paths_and_others_go_on(
    served: Served, models_dir: Path
) -> None:
    for _ in range(2):
        reply = await served.post("/embed?model=broken", GOOD)
        error = reply.json["error"]
        assert (reply.status, error["code"]) == (503, "model_unavailable")
        assert reply.headers["Retry-After"] == "10"
        assert str(models_dir) not in error["message"]
        assert "damaged or incomplete" in error["message"]
    assert (await served.post("/embed", GOOD)).status == 200
    health = (await served.get("/health")).json
    assert (health["status"], health["models"]["broken"]) == ("healthy", {"status": "failed", "fault": "loading"})


async def test_health_and_models_say_what_is_loaded(served: Served) -> None:
    await served.post("/embed?model=other", GOOD)
    await served.client.embedder.stock.shelf.evict("mute")
    health = (await served.get("/health")).json
    assert health["model"] == "one"
    assert health["models"]["one"]["embedding_id"] == health["embedding_id"]
    assert health["models"]["other"]["status"] == "healthy"
    assert health["models"]["mute"] == {"status": "unloaded"}
    models = (await served.get("/models")).json
    assert models["aliases"] == {"text-embedding-3-small": "other", "openai/clip": "one"}
    loaded = {name: facts.get("loaded") for name, facts in models["details"].items()}
    assert loaded.items() >= {"one": True, "other": True, "mute": False, "demo": False, "vit-b-32": None}.items()
    assert models["details"]["other"]["device"] == "cpu"


async def test_metrics_and_log_tell_of_each_model_by_its_own_name(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    before = await values(served)
    with caplog.at_level(logging.INFO, "clipsrv.access"):
        await served.post("/embed?model=text-embedding-3-small", GOOD)
        await served.post("/embed?model=nothing", GOOD)
    assert [record.fields.get("model") for record in caplog.records if hasattr(record, "fields")] == ["other", None]
    after = await values(served)
    name = "clipsrv_model_embedded_total"
    assert {key for key in after if key[0] == name and after[key] != before.get(key)} == {(name, "other")}
    assert after["clipsrv_model_loaded", "other"] == 1
    names = {name for family, name in after if family.startswith("clipsrv_model_") and name}
    assert names == {"one", "other", "mute", "broken", "demo"}


async def test_a_model_of_other_dimensions_gives_vectors_of_its_own(tmp_path: Path) -> None:
    """Nothing of one model's shape is taken for another's."""
    write_model(tmp_path / "small")
    offer = OfferSettings(("demo", "small"))
    async with serving(Library(tmp_path, offer, ModelSettings("cpu", threads=1))) as running:
        small, demo = [await running.post(f"/embed?model={name}", GOOD) for name in ("small", "demo")]
        assert (small.json["dimensions"], len(small.json["embedding"])) == (64, 64)
        assert (demo.json["dimensions"], len(demo.json["embedding"])) == (192, 192)
        assert small.headers["X-Embedding-Id"] != demo.headers["X-Embedding-Id"]


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def base64(blob: bytes) -> str:
    return b64encode(blob).decode()


async def values(served: Served) -> dict[tuple[str, str | None], float]:
    text = (await served.get("/metrics")).body.decode()
    return {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_openais_routes_take_names_and_aliases_and_list_them_all(served: Served) -> None:
    listed = (await served.get("/v1/models")).json["data"]
    created = {row["id"]: row["created"] for row in listed}
    assert created.keys() >= {"one", "other", "text-embedding-3-small", "openai/clip"}
    assert created["text-embedding-3-small"] == created["other"] > 0
    uri = f"data:image/png;base64,{base64(GOOD)}"
    one = np.array((await served.post("/v1/embeddings", body(input=uri), JSON)).json["data"][0]["embedding"])
    for path, name in (("", "text-embedding-3-small"), ("?model=other", None), ("?model=other", "other")):
        reply = await served.post(f"/v1/embeddings{path}", body(input=[uri, "a"], model=name), JSON)
        assert reply.json["model"] == "other"
        np.testing.assert_allclose(reply.json["data"][0]["embedding"], -one, atol=1e-6)
    unknown = await served.post("/v1/embeddings", body(input="a", model="ada"), JSON)
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    two = await served.post("/v1/embeddings?model=other", body(input="a", model="one"), JSON)
    assert (two.status, two.json["error"]["code"]) == (400, "invalid_field")
    broken = await served.post("/v1/embeddings", body(input=uri, model="broken"), JSON)
    assert (broken.status, broken.json["error"]["type"]) == (503, "server_error")
