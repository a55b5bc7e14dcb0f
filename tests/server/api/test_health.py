"""What the server says of itself: /health, /models, and what there is no endpoint for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from clipsrv.errors import InferenceFailedError
from clipsrv.models.folders import KNOWN_MODELS
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings
from tests.support.model import DIMENSIONS, SIZE, write_model
from tests.support.photos import cuttings
from tests.support.serving import Client, form_data

IMAGES = cuttings(5)
Serve = Callable[..., Awaitable[Client]]


async def test_health_says_what_runs(client: Client, model: Model) -> None:
    answer = await client.get("/health")
    assert answer.status == 200
    running = {
        "device": "cpu",
        "precision": "fp32",
        "dimensions": DIMENSIONS,
        "embedding_id": model.embedding_id,
        "text": True,
    }
    models = {"tiny": {"status": "healthy", **running}}
    assert answer.json == {"status": "healthy", "model": "tiny", **running, "models": models}
    assert (await client.get("/health/live")).status == 200


async def test_health_says_starting_until_the_model_is_warm(serve_here: Serve) -> None:
    client = await serve_here(wait=False)
    for ask in (client.get("/health"), client.post("/embed", data=form_data("image", [IMAGES[0]]))):
        answer = await ask
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "starting" in (answer.json.get("status"), answer.json.get("error", {}).get("code"))
    assert (await client.get("/health/live")).status == 200
    assert (await client.get("/models")).json["current"] == "tiny"
    await client.embedder.start()
    assert (await client.get("/health")).status == 200


async def test_health_says_draining_and_new_work_is_refused(client: Client) -> None:
    client.embedder.drain()
    health = await client.get("/health")
    assert (health.status, health.json["status"]) == (503, "draining")
    refused = await client.post("/embed", data=form_data("image", [IMAGES[0]]))
    assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")


async def test_models_lists_the_known_and_the_converted(client: Client, model: Model) -> None:
    answer = (await client.get("/models")).json
    assert answer["models"] == [*KNOWN_MODELS, "demo", "tiny"]
    assert answer["current"] == "tiny"
    details = answer["details"]
    assert set(details) == set(answer["models"])
    assert details["vit-l-14"] == {"converted": False}
    assert {
        "dimensions": DIMENSIONS,
        "image_size": SIZE,
        "precision": "fp32",
        "embedding_id": model.embedding_id,
        "preprocessing_id": model.preprocessing_id,
        "normalized": True,
        "converted": True,
        "license": "MIT",
    }.items() <= details["tiny"].items()


async def test_models_tells_the_ids_of_the_options_in_use(serve_here: Serve, model: Model) -> None:
    details = (await (await serve_here(fast_decode=True)).get("/models")).json["details"]["tiny"]
    assert details["preprocessing_id"] != model.preprocessing_id
    assert details["embedding_id"] != model.embedding_id


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/embed", 405), ("PUT", "/health", 405)]
)
async def test_other_paths_and_methods_have_the_same_error_body(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = await client.ask(method, path)
    assert answer.status == status
    assert set(answer.json) == {"error", "request_id"}


async def test_a_model_that_gives_zeros_does_not_start(serve_here: Serve, tmp_path: Path) -> None:
    zeros = load_model(write_model(tmp_path / "zeros", text=False, weight=0.0), ModelSettings(device="cpu", threads=1))
    client = await serve_here(lambda: zeros, wait=False)
    with pytest.raises(InferenceFailedError, match="zeros"):
        await client.embedder.start()
