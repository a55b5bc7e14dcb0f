"""Inference that fails, hangs, or gives nonsense: only its own request is hurt, and /health says how things are."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsrv.models.model import Model
from tests.support.faulty import BrokenEncoder, HangingEncoder, PoisonedEncoder, SmallMemoryEncoder
from tests.support.serving import (
    Served,
    assert_as_before,
    drawn,
    eventually,
    make_model,
    part,
    request,
    serving,
    truth,
)

GOOD = drawn(1)


def black() -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    return file.getvalue()


async def health(served: Served) -> dict[str, Any]:
    reply = await served.get("/health")
    assert (reply.status == 200) == (reply.json["status"] == "healthy")
    document: dict[str, Any] = reply.json
    return document


@pytest.mark.parametrize("how", ["raise", "nan", "zeros", "panic"])
async def test_a_poisoned_image_fails_alone_in_its_batch(how: str) -> None:
    encoder = HangingPoisoned(how)
    async with serving(make_model(encoder)) as served:
        encoder.go_on.clear()
        first = asyncio.create_task(served.post("/embed", GOOD))
        await eventually(encoder.entered.is_set)
        others = [asyncio.create_task(served.post("/embed", drawn(seed))) for seed in range(7)]
        poison = asyncio.create_task(served.post("/embed", black()))
        await eventually(lambda: served.engine.images.queued == 8)
        encoder.go_on.set()
        bad = await poison
        assert (bad.status, bad.code) == (503, "inference_failed")
        assert (await first).status == 200
        if how != "panic":
            for seed, reply in enumerate(await asyncio.gather(*others)):
                np.testing.assert_allclose(reply.json["embedding"], truth(drawn(seed)), atol=1e-6)
        else:  # the batcher died with its batch, and was started again
            assert {reply.status for reply in await asyncio.gather(*others)} == {503}
        await assert_as_before(served)


class HangingPoisoned(PoisonedEncoder):
    """Waits in its first batch, so that the next one is known to be full."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.go_on = threading.Event()
        self.go_on.set()

    def features(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.go_on.wait(60)
        return super().features(batch)


async def test_no_answer_ever_holds_a_value_that_is_not_finite() -> None:
    async with serving(make_model(PoisonedEncoder("nan"))) as served:
        reply = await served.form(part(GOOD, "images"), part(black(), "images"), path="/embed/batch")
        assert (reply.status, reply.code) == (503, "inference_failed")
        assert b"null" not in reply.body
        assert b"NaN" not in reply.body


async def test_out_of_memory_halves_the_batch_until_it_fits_and_stays_there() -> None:
    encoder = SmallMemoryEncoder(room=3)
    async with serving(make_model(encoder), max_batch_size=16) as served:
        while max(encoder.sizes, default=0) <= 3:  # batches may form small by themselves
            reply = await served.form(*[part(drawn(seed), "images") for seed in range(16)], path="/embed/batch")
            assert reply.status == 200
            np.testing.assert_allclose(reply.json["embeddings"][15], truth(drawn(15)), atol=1e-6)
        encoder.sizes.clear()
        again = await served.form(*[part(drawn(seed), "images") for seed in range(16)], path="/embed/batch")
        assert again.status == 200
        assert max(encoder.sizes) <= 3
        await assert_as_before(served)


async def test_out_of_memory_for_a_single_image_is_503_and_the_next_one_goes_through() -> None:
    encoder = SmallMemoryEncoder(room=0)
    async with serving(make_model(encoder)) as served:
        reply = await served.post("/embed", GOOD)
        assert (reply.status, reply.code) == (503, "out_of_memory")
        assert reply.headers["retry-after"]
        encoder.room = 16
        await assert_as_before(served)


async def test_memory_that_runs_out_while_decoding_is_503() -> None:
    class Poor(Model):
        def read_image(self, *_: Any, **__: Any) -> Any:
            raise MemoryError

    async with serving(Poor(**vars(make_model()))) as served:
        reply = await served.post("/embed", GOOD)
        assert (reply.status, reply.code) == (503, "out_of_memory")


async def test_an_engine_that_keeps_failing_is_unhealthy_and_healthy_again_without_a_caller() -> None:
    encoder = BrokenEncoder()
    async with serving(make_model(encoder), probe_after=0.1) as served:
        assert (await health(served))["status"] == "healthy"
        encoder.broken = True
        await eventually(lambda: served.embedder.status == "unhealthy")
        assert (await health(served))["fault"] == "failing"
        assert (await served.get("/health/live")).status == 200
        encoder.broken = False
        await eventually(lambda: served.embedder.status == "healthy")
        await assert_as_before(served)


async def test_three_failures_of_callers_are_noticed_and_a_success_forgives_them() -> None:
    encoder = BrokenEncoder()
    async with serving(make_model(encoder)) as served:
        encoder.broken = True
        for _ in range(3):
            assert (await served.post("/embed", GOOD)).code == "inference_failed"
        assert (await health(served))["status"] == "unhealthy"
        encoder.broken = False
        assert (await served.post("/embed", GOOD)).status == 200
        assert (await health(served))["status"] == "healthy"


async def test_an_inference_that_hangs_is_noticed_and_its_callers_get_504() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder), deadline=0.3) as served:
        encoder.go_on.clear()
        reply = await served.post("/embed", GOOD)
        assert (reply.status, reply.code) == (504, "deadline_exceeded")
        await eventually(lambda: served.embedder.status == "unhealthy")
        assert (await health(served))["fault"] == "hanging"
        encoder.go_on.set()
        await eventually(lambda: served.embedder.status == "healthy")
        await assert_as_before(served)


class HangingModel(Model):
    """Waits inside the decoding of every image until the gate is open."""

    gate = threading.Event()

    def read_image(self, *arguments: Any, **options: Any) -> Any:
        self.gate.wait(60)
        return super().read_image(*arguments, **options)


async def test_decoding_threads_that_hang_make_the_server_unhealthy_until_they_are_back() -> None:
    model = HangingModel(**vars(make_model()))
    async with serving(model, deadline=0.3, decode_threads=2) as served:
        first = await served.post("/embed", GOOD)
        assert (first.status, first.code) == (504, "deadline_exceeded")
        assert (await health(served))["status"] == "healthy", "one of two threads still decodes"
        assert (await served.post("/embed", GOOD)).status == 504
        await eventually(lambda: served.embedder.status == "unhealthy")
        assert (await health(served))["fault"] == "decoding"
        assert (await served.get("/health/live")).status == 200
        model.gate.set()
        await eventually(lambda: served.embedder.status == "healthy")
        await assert_as_before(served)


async def test_health_is_503_while_the_model_loads_and_while_the_server_drains() -> None:
    async with serving(wait=False) as served:
        assert (await health(served))["status"] == "starting"
        reply = await served.post("/embed", GOOD)
        assert (reply.status, reply.code) == (503, "starting")
        assert reply.headers["retry-after"]
        await served.embedder.start()
        assert (await health(served))["status"] == "healthy"
        served.embedder.drain()
        assert (await health(served))["status"] == "draining"
        reply = await served.post("/embed", GOOD)
        assert (reply.status, reply.code) == (503, "shutting_down")


async def test_a_caller_gone_in_the_middle_of_a_batch_leaves_it_to_the_others() -> None:
    encoder = HangingEncoder()
    async with serving(make_model(encoder)) as served:
        encoder.go_on.clear()
        _, writer = await served.connect()
        writer.write(request("POST", "/embed", GOOD, "Content-Type: image/png"))
        await eventually(lambda: served.engine.images.busy_for > 0)
        writer.transport.abort()
        other = asyncio.create_task(served.post("/embed", drawn(3)))
        await eventually(lambda: served.engine.images.queued == 1)
        encoder.go_on.set()
        np.testing.assert_allclose((await other).json["embedding"], truth(drawn(3)), atol=1e-6)
        await assert_as_before(served)


async def test_the_same_image_a_hundred_times_at_once_gives_one_vector() -> None:
    async with serving() as served:
        replies = await asyncio.gather(*(served.post("/embed", GOOD) for _ in range(100)))
        assert len({reply.body for reply in replies}) == 1
