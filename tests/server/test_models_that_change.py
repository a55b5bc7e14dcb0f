"""Folders of models that are exchanged, deleted, spoilt or new while a server has them: every answer is some model's
own, and says whose."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import pytest_asyncio

from clipsrv.models.library import Library
from clipsrv.serving import history, keeper
from clipsrv.settings import ModelSettings, OfferSettings
from conversions.folder import publish
from tests.support.model import TEXT_TOWER, VISION_TOWER, text_graph, write_manifest, write_model
from tests.support.photos import drawn
from tests.support.serving import Served, eventually, serving

GOOD, JSON = drawn(1), "application/json"


@pytest.fixture(autouse=True)
def in_quick_succession(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper looks often, and what failed is tried again soon."""
    monkeypatch.setattr(keeper, "_LOOK", 0.02)
    monkeypatch.setattr(history, "TRY_AGAIN_AFTER", 0.05)


def library(models: Path) -> Library:
    return Library(models, OfferSettings(("one",), on_demand=True), ModelSettings("cpu", threads=1))


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server of the model `one`."""
    write_model(tmp_path / "one", text=False)
    async with serving(library(tmp_path)) as running:
        yield running


@pytest_asyncio.fixture
async def served_with_data(tmp_path: Path) -> AsyncIterator[Served]:
    """The same where its text tower has its weights in a file beside it, as converted models have."""
    with_data(write_model(tmp_path / "one"))
    async with serving(library(tmp_path)) as running:
        yield running


def with_data(folder: Path) -> Path:
    name = "text.fp32.onnx"
    (folder / name).unlink()
    onnx.save(text_graph(), folder / name, save_as_external_data=True, location=f"{name}.data", size_threshold=64)
    (folder / "manifest.json").unlink()
    write_manifest(folder, {"vision": VISION_TOWER, "text": TEXT_TOWER})
    return folder


async def vector(served: Served, path: str = "/embed") -> Any:
    reply = await served.post(path, GOOD)
    assert reply.status == 200, reply.body
    return np.array(reply.json["embedding"])


def status(served: Served, path: str, wanted: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await served.post(path, GOOD)).status == wanted

    return look


async def test_a_folder_is_exchanged_again_and_again_under_load_and_every_answer_is_one_models(
    served: Served, tmp_path: Path
) -> None:
    one, over, partial = await vector(served), asyncio.Event(), tmp_path / ".partial" / "one"
    seen = [0, 0]

    async def ask() -> None:
        while not over.is_set():
            likeness = float(np.dot(await vector(served), one))
            assert abs(likeness) == pytest.approx(1, abs=1e-5), "no model's"
            seen[likeness < 0] += 1

    callers = [asyncio.create_task(ask()) for _ in range(4)]
    for sign in (-1.0, 1.0, -1.0):
        publish(write_model(partial, text=False, weight=sign), tmp_path / "one")
        shutil.rmtree(partial)

        async def it_is_there(sign: float = sign) -> bool:
            return float(np.dot(await vector(served), one)) * sign > 0

        await eventually(it_is_there)
    over.set()
    await asyncio.gather(*callers)
    assert min(seen) > 0
    await eventually(lambda: len(list(served.embedder.stock.shelf)) == 1)


async def test_a_folder_that_is_deleted_is_served_on_from_memory(served_with_data: Served, tmp_path: Path) -> None:
    served = served_with_data
    one = await vector(served)
    text = await served.post("/embed/text", b'{"text": "a dog"}', JSON)
    shutil.rmtree(tmp_path / "one")
    await asyncio.sleep(0.1)
    assert np.array_equal(await vector(served), one)
    again = await served.post("/embed/text", b'{"text": "a dog"}', JSON)
    assert again.json["embedding"] == text.json["embedding"]
    assert (await served.get("/health")).json["status"] == "healthy"
    await served.embedder.stock.shelf.evict("one")
    gone = await served.post("/embed", GOOD)
    assert (gone.status, gone.json["error"]["code"]) == (503, "model_unavailable")
    assert "its folder is gone" in gone.json["error"]["message"]
    write_model(tmp_path / "one", text=False)
    await eventually(status(served, "/embed", 200))


async def test_a_file_that_is_written_over_ends_its_model_and_not_the_server(
    served_with_data: Served, tmp_path: Path
) -> None:
    served = served_with_data
    await vector(served)
    spoilt = tmp_path / "one" / "text.fp32.onnx.data"
    whole = spoilt.read_bytes()
    with spoilt.open("r+b") as file:
        file.write(b"garbage")
    await eventually(status(served, "/embed", 503))
    health = await served.get("/health")
    assert (health.status, health.json["fault"]) == (503, "loading")
    spoilt.write_bytes(whole)
    await eventually(status(served, "/embed", 200))
    assert (await served.get("/health")).status == 200


async def test_a_model_that_appears_is_served_without_a_restart(served: Served, tmp_path: Path) -> None:
    assert (await served.post("/embed?model=new", GOOD)).status == 404
    publish(write_model(tmp_path / ".partial" / "new", text=False, weight=-1.0), tmp_path / "new")
    await eventually(status(served, "/embed?model=new", 200))
    np.testing.assert_allclose(await vector(served, "/embed?model=new"), -await vector(served), atol=1e-6)
    shutil.rmtree(tmp_path / "new")
    await eventually(status(served, "/embed?model=new", 404))
    await eventually(lambda: not served.embedder.stock.shelf.has("new"))
