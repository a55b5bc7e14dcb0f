"""The page's gallery of an index: its images in turn, what is near one, and small copies of indexed files only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsrv.search.opening import open_held
from clipsrv.search.rows import Rows
from clipsrv.server.api.state import INDEXED
from tests.support.index import write_index
from tests.support.model import make_model
from tests.support.serving import Client, drawn, serving
from tests.support.wire import request

KEY = "a-key-that-nobody-guesses"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index whose files lie beside it, with names that a URL, a shell and HTML each take for something else."""
    images = {f"photos/{number} & ü?#%2f'.png": drawn(number) for number in range(12)}
    for path, blob in images.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(blob)
    return write_index(tmp_path / "x.npy", make_model(), images)


def name(number: int) -> str:
    return f"photos/{number} & ü?#%2f'.png"


@asynccontextmanager
async def showing(index: Path, **settings: Any) -> AsyncIterator[Client]:
    async with serving(index=str(index), **settings) as served:
        yield served.client


async def test_images_are_told_of_in_the_order_of_the_index_some_at_a_time(index: Path) -> None:
    async with showing(index) as client:
        first = (await client.get("/gallery?limit=5")).json
        assert first["count"] == 12
        assert first["items"] == [{"id": name(number), "path": name(number)} for number in range(5)]
        rest = (await client.get("/gallery?first=10&limit=1000")).json["items"]
        assert [one["id"] for one in rest] == [name(10), name(11)]
        for empty in ("first=12", "first=999999", "limit=0"):
            assert (await client.get(f"/gallery?{empty}")).json["items"] == []


async def test_what_is_near_an_image_is_what_its_vector_says(index: Path) -> None:
    vectors = np.load(index)
    async with showing(index) as client:
        answer = await client.get("/gallery/near", params={"id": name(3), "limit": "4"})
        expected = np.argsort(-(vectors @ vectors[3]), kind="stable")[:4]
        assert [one["id"] for one in answer.json["results"]] == [name(int(row)) for row in expected]
        assert answer.json["results"][0]["score"] == pytest.approx(1, abs=1e-6)


async def test_a_small_copy_is_of_the_indexed_file_and_asked_for_once(index: Path) -> None:
    async with showing(index) as client:
        answer = await client.get("/gallery/thumbnail", params={"id": name(7)})
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        with Image.open(BytesIO(answer.body)) as small:
            assert max(small.size) <= 320
        tag = answer.headers["ETag"]
        again = await client.get("/gallery/thumbnail", params={"id": name(7)}, headers={"If-None-Match": tag})
        assert (again.status, again.body) == (304, b"")


OUTSIDE = (
    "",
    "nothing",
    "../x.npy",
    "x.npy",
    "/etc/passwd",
    "photos/0",
    "photos/../photos/0 & ü?#%2f'.png",
    "\x00",
    "\udc80",
)


@pytest.mark.parametrize("wanted", OUTSIDE, ids=repr)
async def test_only_ids_of_the_index_have_a_small_copy(index: Path, wanted: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in wanted.encode("utf-8", "surrogateescape"))
    async with serving(index=str(index)) as served:
        for path in ("thumbnail", "near"):
            reply = await served.get(f"/gallery/{path}?id={quoted}")
            assert (reply.status, reply.json["error"]["code"]) == (404, "original_unavailable")


async def test_a_file_that_is_another_by_now_or_gone_is_not_shown(index: Path) -> None:
    (index.parent / name(0)).write_bytes(drawn(99))
    (index.parent / name(1)).unlink()
    (index.parent / name(2)).unlink()
    (index.parent / name(2)).symlink_to("/etc/hostname")
    async with showing(index) as client:
        for number in range(3):
            answer = await client.get("/gallery/thumbnail", params={"id": name(number)})
            assert (answer.status, answer.json["error"]["code"]) == (404, "original_unavailable")


async def test_the_gallery_needs_the_key_and_an_index_and_the_page(index: Path) -> None:
    async with showing(index, api_keys=KEY) as client:
        for path in ("/gallery", "/gallery/near?id=x", "/gallery/thumbnail?id=x"):
            assert (await client.get(path)).status == 401
        assert (await client.get("/gallery", headers={"X-API-Key": KEY})).status == 200
    async with serving() as served:
        assert (await served.get("/gallery")).json == {"count": 0, "items": [], "model": None}
        for path in ("near", "thumbnail"):
            reply = await served.get(f"/gallery/{path}?id=x")
            assert (reply.status, reply.json["error"]["code"]) == (404, "no_index")
    async with showing(index, page=False) as client:
        assert (await client.get("/gallery")).json["error"]["code"] == "not_found"


@pytest.mark.parametrize("query", ["first=-1", "first=x", "limit=1001", "limit=1e3", "first=9" + "9" * 20, "offset=1"])
async def test_what_is_no_number_is_refused_by_its_name(index: Path, query: str) -> None:
    async with showing(index) as client:
        assert (await client.get(f"/gallery?{query}")).json["error"]["code"] == "unknown_option"


async def test_small_copies_take_slots_as_images_do(index: Path) -> None:
    async with serving(index=str(index), max_queue=4, max_queue_per_caller=4, max_images=4) as served:
        with served.embedder.workshop.slots.take(4):
            full = await served.client.get("/gallery/thumbnail", params={"id": name(0)})
            assert (full.status, full.headers["Retry-After"]) == (429, "1")
        assert (await served.client.get("/gallery/thumbnail", params={"id": name(0)})).status == 200
        assert served.embedder.workshop.slots.in_use == 0
        assert (await served.send(request("POST", "/gallery", b""))).status == 405


async def test_an_index_that_is_replaced_is_the_one_that_is_shown(index: Path) -> None:
    async with showing(index) as client:
        client.app[INDEXED].rest = 0
        assert (await client.get("/gallery/near", params={"id": name(5)})).status == 200
        (index.parent / "new.png").write_bytes(drawn(50))
        write_index(index, make_model(), {"new.png": drawn(50)})
        assert (await client.get("/gallery/near", params={"id": "new.png"})).status == 200
        assert (await client.get("/gallery")).json["count"] == 1
        assert (await client.get("/gallery/near", params={"id": name(5)})).status == 404


def test_ids_are_found_where_they_stand_the_first_of_equal_ones_too(tmp_path: Path) -> None:
    held = open_held(
        str(write_index(tmp_path / "x.npy", make_model(), {f"{number}": drawn(number) for number in range(9)}))
    )
    rows = Rows(held)
    assert [rows.find(str(number)) for number in range(9)] == list(range(9))
    assert [rows.find(text) for text in ("9", "", "00", "\udc80")] == [None] * 4
    held.close()
