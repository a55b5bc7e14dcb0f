"""/search: an image or a text in, the nearest of the index out; by the model that made it, and as the files are now."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsrv.errors import ClipsrvError, ConfigError, ShuttingDownError
from clipsrv.models.model import Model
from clipsrv.search.errors import UnusableIndexError
from clipsrv.server.api.state import INDEXED
from clipsrv.settings import Decoding
from tests.support.index import write_index
from tests.support.library import Given
from tests.support.model import make_model
from tests.support.server import ServerProcess
from tests.support.serving import Client, drawn, eventually, form_data, serving

Serve = Callable[..., Awaitable[Client]]
IMAGES = {f"photos/{number}.png": drawn(number) for number in range(20)}
IMAGES["photos/copy.png"] = IMAGES["photos/7.png"]
IMAGE = IMAGES["photos/7.png"]


@pytest.fixture(params=["x.npy", "x.jsonl", "x.parquet", "x.lance"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_index(tmp_path / request.param, make_model(), IMAGES)


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    return write_index(tmp_path / "x.npy", make_model(), IMAGES)


async def paths(client: Client, **options: Any) -> list[str]:
    answer = await client.post("/search", **options)
    assert answer.status == 200, answer.body
    return [one["path"] for one in answer.json["results"]]


async def test_an_image_finds_itself_and_its_copy_in_every_form_it_is_sent_in(serve_here: Serve, index: Path) -> None:
    client = await serve_here(index=str(index))
    encoded = base64.b64encode(IMAGE).decode()
    for sent in (
        {"data": form_data("image", [IMAGE])},
        {"data": IMAGE, "headers": {"Content-Type": "image/png"}},
        {"json": {"image": encoded, "model": "tiny"}},
        {"json": {"image": encoded, "crop": [0, 0, 40, 30]}},
        {"json": {"image": encoded}, "params": {"crop": "0,0,40,30"}},
    ):
        answer = await client.post("/search?limit=3", **sent)
        assert answer.status == 200, answer.body
        first, second, third = answer.json["results"]
        assert [first["path"], second["path"]] == ["photos/7.png", "photos/copy.png"]
        assert first["score"] == second["score"] == pytest.approx(1, abs=1e-6)
        assert third["score"] < 1
        assert set(first) == {"id", "path", "score"}
        assert answer.json["model"] == "tiny"
        assert answer.headers["X-Embedding-Id"] == make_model().embedding_id
        assert "search;dur=" in answer.headers["Server-Timing"]


async def test_a_text_finds_what_its_vector_is_nearest_to(serve_here: Serve, npy: Path) -> None:
    client = await serve_here(index=str(npy))
    answer = await client.post("/embed/text", json={"text": "a red heart"})
    scores = np.load(npy) @ np.array(answer.json["embedding"], np.float32)
    expected = [list(IMAGES)[row] for row in np.argsort(-scores, kind="stable")[:10]]
    assert await paths(client, json={"text": "a red heart"}) == expected
    answer = await client.post("/search", json={"text": "word " * 150})
    assert answer.json["truncated"] is True
    assert "unknown_script" not in answer.json


async def test_without_an_index_it_is_404(client: Client) -> None:
    answer = await client.post("/search", json={"text": "a"})
    assert (answer.status, answer.code) == (404, "no_index")


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing": ({"json": {}}, 400, "unexpected_field"),
    "both": ({"json": {"text": "a", "image": "AAAA"}}, 400, "unexpected_field"),
    "several texts": ({"json": {"texts": ["a", "b"]}}, 400, "unexpected_field"),
    "several images": ({"data": form_data("image", [IMAGE, IMAGE])}, 400, "duplicate_field"),
    "no result": ({"json": {"text": "a"}, "params": {"limit": "0"}}, 400, "unknown_option"),
    "too many results": ({"json": {"text": "a"}, "params": {"limit": "1001"}}, 400, "unknown_option"),
    "a limit that is none": ({"json": {"text": "a"}, "params": {"limit": "ten"}}, 400, "unknown_option"),
    "another option": ({"json": {"text": "a"}, "params": {"top": "3"}}, 400, "unknown_option"),
    "a part of a text": ({"json": {"text": "a"}, "params": {"crop": "0,0,1,1"}}, 400, "invalid_field"),
    "a model that is not served": ({"json": {"text": "a", "model": "other"}}, 404, "model_not_found"),
    "a bad image": ({"data": IMAGE[:40], "headers": {"Content-Type": "image/png"}}, 422, "truncated_image"),
    "NumPy's form": ({"json": {"text": "a"}, "headers": {"Accept": "application/x-npy"}}, 406, "not_acceptable"),
}


@pytest.mark.parametrize(("sent", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_searched_for_is_refused_by_name(
    npy: Path, sent: dict[str, Any], status: int, code: str
) -> None:
    async with serving(index=str(npy)) as served:
        answer = await served.client.post("/search", **sent)
        assert (answer.status, answer.code) == (status, code), answer.body


def two(name: str) -> Model:
    return make_model() if name == "other" else of_another_decoding()


def of_another_decoding() -> Model:
    return replace(make_model(), decoding=Decoding(fast=True))


async def test_the_model_that_made_the_index_is_found_among_those_served(npy: Path) -> None:
    async with serving(Given(two, ["tiny", "other"]), index=str(npy)) as served:
        answer = await served.client.post("/search", json={"text": "a"})
        assert (answer.status, answer.json["model"]) == (200, "other")
        answer = await served.client.post("/search", json={"text": "a", "model": "tiny"})
        assert (answer.status, answer.code) == (400, "invalid_field")


async def test_the_model_that_made_the_index_is_loaded_where_it_is_served_on_demand(tmp_path: Path) -> None:
    index = write_index(tmp_path / "x.npy", make_model(), IMAGES, model="other")
    async with serving(Given(two, ["tiny"], ["other"]), index=str(index)) as served:
        assert (await served.client.post("/search", json={"text": "a"})).json["model"] == "other"


UNFIT: dict[str, tuple[Callable[[Path], object], type[ClipsrvError], str]] = {
    "of another model": (
        lambda index: write_index(index, of_another_decoding(), IMAGES),
        UnusableIndexError,
        r"a model called tiny made. Served is tiny, which makes others",
    ),
    "gone": (lambda index: index.unlink(), UnusableIndexError, "There is no"),
    "cut short": (lambda index: os.truncate(index, 500), UnusableIndexError, "was cut short"),
    "with NaN": (
        lambda index: np.save(index, np.full((21, 64), np.nan, np.float32)),
        UnusableIndexError,
        "is not finite",
    ),
}


@pytest.mark.parametrize(("change", "kind", "said"), UNFIT.values(), ids=UNFIT)
async def test_an_index_that_cannot_be_served_ends_the_start_by_name(
    npy: Path, change: Callable[[Path], object], kind: type[ClipsrvError], said: str
) -> None:
    change(npy)
    with pytest.raises(kind, match=said):
        async with serving(index=str(npy)):
            pass


async def test_an_address_of_a_database_or_another_file_is_a_wrong_setting() -> None:
    for where in ("postgresql://localhost/shop", "photos.csv"):
        with pytest.raises(ConfigError):
            async with serving(index=where):
                pass


async def test_an_index_that_is_replaced_is_searched_without_a_restart(serve_here: Serve, index: Path) -> None:
    client = await serve_here(index=str(index))
    assert await paths(client, data=form_data("image", [IMAGE])) != ["new.png"]
    write_index(index, make_model(), {"new.png": drawn(99)})
    client.app[INDEXED].rest = 0
    assert await paths(client, data=form_data("image", [IMAGE])) == ["new.png"]


async def test_a_replacement_that_cannot_be_used_leaves_the_old_index_and_is_not_tried_over_and_over(
    serve_here: Serve, npy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "clipsrv")
    client = await serve_here(index=str(npy))
    client.app[INDEXED].rest = 0
    before = await paths(client, json={"text": "a"})
    write_index(npy, of_another_decoding(), {"new.png": drawn(99)})
    for _ in range(3):
        assert await paths(client, json={"text": "a"}) == before
    assert [record.getMessage() for record in caplog.records] == [
        f"the index was replaced by one that cannot be used; the old one stays: {npy} holds vectors of another model."
    ]
    write_index(npy, make_model(), {"new.png": drawn(99)})
    assert await paths(client, json={"text": "a"}) == ["new.png"]


async def test_an_index_that_is_written_over_is_503_and_searched_again_when_it_is_whole(
    serve_here: Serve, npy: Path
) -> None:
    client = await serve_here(index=str(npy))
    client.app[INDEXED].rest = 0
    whole = await asyncio.to_thread(npy.read_bytes)
    await asyncio.to_thread(npy.write_bytes, whole[:500])
    for _ in range(2):
        answer = await client.post("/search", json={"text": "a"})
        assert (answer.status, answer.code) == (503, "index_unavailable")
        assert str(npy) not in answer.body.decode()
    assert (await client.post("/embed/text", json={"text": "a"})).status == 200
    await asyncio.to_thread(npy.write_bytes, whole)
    assert len(await paths(client, json={"text": "a"})) == 10


async def test_a_model_that_makes_other_vectors_by_now_does_not_search_the_index_until_that_is_replaced_too(
    npy: Path,
) -> None:
    made = [make_model()]
    library = Given(lambda name: made[-1])
    async with serving(library, index=str(npy)) as served:
        served.app[INDEXED].rest = 0
        made.append(of_another_decoding())
        library.versions["tiny"] = 2
        await eventually(lambda: served.embedder.model is not None and served.embedder.model.decoding.fast)
        answer = await served.client.post("/search", json={"text": "a"})
        assert (answer.status, answer.code) == (503, "index_unavailable")
        write_index(npy, of_another_decoding(), IMAGES)
        assert (await served.client.post("/search", json={"text": "a"})).status == 200


async def test_a_search_that_takes_too_long_is_504_and_keeps_nobody_else(npy: Path) -> None:
    gate = threading.Event()
    async with serving(index=str(npy)) as served:
        indexed = served.app[INDEXED]
        slow = asyncio.create_task(indexed.use(lambda held: gate.wait(60)))
        await asyncio.sleep(0)
        indexed.deadline = 0.01
        answer = await served.client.post("/search", json={"text": "a"})
        assert (answer.status, answer.code) == (504, "deadline_exceeded")
        assert (await served.client.post("/embed/text", json={"text": "a"})).status == 200
        gate.set()
        assert await slow
        indexed.deadline = 60
        assert len(await paths(served.client, json={"text": "a"})) == 10


async def test_more_searches_than_slots_are_429(npy: Path) -> None:
    gate = threading.Event()
    async with serving(index=str(npy), max_queue=4, max_images=4) as served:
        slow = [asyncio.create_task(served.app[INDEXED].use(lambda held: gate.wait(60), who)) for who in range(4)]
        await asyncio.sleep(0)
        answer = await served.client.post("/search", json={"text": "a"})
        assert (answer.status, answer.code) == (429, "overloaded")
        gate.set()
        assert all(await asyncio.gather(*slow))
        assert len(await paths(served.client, json={"text": "a"})) == 10


async def test_stopping_fails_who_waits_for_a_search(npy: Path) -> None:
    gate = threading.Event()
    async with serving(index=str(npy)) as served:
        slow = asyncio.create_task(served.app[INDEXED].use(lambda held: gate.wait(60)))
        await asyncio.sleep(0)
    with pytest.raises(ShuttingDownError):
        await slow
    gate.set()


async def test_until_the_index_has_its_model_it_is_503(npy: Path) -> None:
    async with serving(index=str(npy), wait=False) as served:
        await served.app[INDEXED].open()
        await served.embedder.start()
        answer = await served.client.post("/search", json={"text": "a"})
        assert (answer.status, answer.code) == (503, "starting")


def test_a_server_without_its_index_ends_with_status_6_and_one_line(
    run_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = run_server("--index", tmp_path / "nothing.npy")
    assert server.wait() == 6
    assert server.lines[-1].startswith(f"clipsrv: There is no {tmp_path}/nothing.npy: make it with")
