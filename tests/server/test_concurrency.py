"""Many callers at once: each gets its own image's vector, nobody's image hurts another's, nobody's absence costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from clipsrv.config import Config
from tests.support.faulty import HangingEncoder
from tests.support.model import make_model, truth
from tests.support.photos import cuttings
from tests.support.serving import Client, eventually, form_data

IMAGES = cuttings(64)
Serve = Callable[..., Awaitable[Client]]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Of each image alone, by the library itself; far enough from one another for a swap to show."""
    rows = np.array([truth(blob) for blob in IMAGES])
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + 9 * np.eye(len(rows))
    assert distances.min() > 1e-2
    return rows


async def test_64_callers_at_once_each_get_their_own_vector_in_batches(serve_here: Serve, vectors: np.ndarray) -> None:
    gate = HangingEncoder()
    client = await serve_here(lambda: make_model(gate))
    gate.shut()
    asked = [asyncio.create_task(client.embed(blob)) for blob in IMAGES]
    await eventually(lambda: client.engine.images.queued >= 60, 60)
    gate.go_on.set()
    np.testing.assert_allclose(await asyncio.gather(*asked), vectors, atol=1e-6)
    assert sum(gate.sizes) == 64
    assert max(gate.sizes) == Config().max_batch_size
    assert len(gate.sizes) <= 64 // Config().max_batch_size + 2


async def test_one_broken_image_among_63_good_ones(client: Client, vectors: np.ndarray) -> None:
    blobs = [*IMAGES[:40], b"broken", *IMAGES[41:]]
    refused = await client.post("/embed/batch", data=form_data("images", blobs))
    assert refused.status == 422
    assert [one["index"] for one in refused.json["error"]["details"]["images"]] == [40]
    answer = await client.post("/embed/batch?on_error=null", data=form_data("images", blobs))
    assert answer.status == 200
    rows = answer.json["embeddings"]
    assert rows.pop(40) is None
    assert [one["index"] for one in answer.json["errors"]] == [40]
    np.testing.assert_allclose(np.float32(rows), np.delete(vectors, 40, axis=0), atol=1e-6)


async def test_a_broken_image_of_one_caller_does_not_touch_the_others(client: Client, vectors: np.ndarray) -> None:
    async def broken() -> int:
        return (await client.post("/embed", data=form_data("image", [b"broken"]))).status

    answers = await asyncio.gather(*(task for blob in IMAGES[:16] for task in (client.embed(blob), broken())))
    np.testing.assert_allclose(np.array(answers[::2]), vectors[:16], atol=1e-6)
    assert answers[1::2] == [422] * 16


async def test_what_a_caller_leaves_in_the_queue_is_not_computed(serve_here: Serve) -> None:
    gate = HangingEncoder()
    client = await serve_here(lambda: make_model(gate), max_batch_size=1)
    gate.shut()
    first = asyncio.create_task(client.embed(IMAGES[0]))
    await asyncio.to_thread(gate.entered.wait, 30)
    leaving = asyncio.create_task(client.post("/embed/batch", data=form_data("images", IMAGES[1:11])))
    await eventually(lambda: client.engine.images.queued == 10, 30)
    leaving.cancel()
    await eventually(lambda: client.embedder.workshop.slots.in_use == 1, 30)
    gate.go_on.set()
    await first
    await client.embed(IMAGES[11])
    assert sum(gate.sizes) == 2


async def test_a_request_that_does_not_fit_is_refused_whole_and_before_any_decoding(
    serve_here: Serve,
) -> None:
    gate = HangingEncoder()
    client = await serve_here(lambda: make_model(gate), max_queue=8, max_images=8, max_queue_per_caller=8)
    gate.shut()
    waiting = asyncio.create_task(client.post("/embed/batch", data=form_data("images", IMAGES[:6])))
    await eventually(lambda: client.embedder.workshop.slots.in_use == 6, 30)
    refused = await client.post("/embed/batch", data=form_data("images", IMAGES[:3]))
    assert (refused.status, refused.json["error"]["code"]) == (429, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    accepted = asyncio.create_task(client.post("/embed/batch", data=form_data("images", IMAGES[:2])))
    await eventually(lambda: client.embedder.workshop.slots.in_use == 8, 30)
    assert (await client.post("/embed", data=form_data("image", [IMAGES[0]]))).status == 429
    gate.go_on.set()
    assert [(await task).status for task in (waiting, accepted)] == [200, 200]
    assert client.embedder.workshop.slots.in_use == 0


async def test_a_request_past_its_deadline_is_504_and_gives_its_slots_back(serve_here: Serve) -> None:
    gate = HangingEncoder()
    client = await serve_here(lambda: make_model(gate), deadline=0.3)
    gate.shut()
    answer = await client.post("/embed", data=form_data("image", [IMAGES[0]]))
    assert (answer.status, answer.json["error"]["code"]) == (504, "deadline_exceeded")
    assert client.embedder.workshop.slots.in_use == 0
    gate.go_on.set()


async def test_images_and_texts_are_computed_beside_each_other(client: Client, vectors: np.ndarray) -> None:
    texts = [client.post("/embed/text", json={"text": f"image {number}"}) for number in range(8)]
    *answers, images = await asyncio.gather(*texts, client.post("/embed/batch", data=form_data("images", IMAGES[:16])))
    np.testing.assert_allclose(np.float32(images.json["embeddings"]), vectors[:16], atol=1e-6)
    assert len({tuple(answer.json["embedding"]) for answer in answers}) == 8
