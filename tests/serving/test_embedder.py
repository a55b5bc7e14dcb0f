"""The use case without HTTP: encoded images and texts in, unit vectors out, each request whole or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clipsrv.errors import (
    BadImagesError,
    DeadlineExceededError,
    InvalidTextError,
    OutOfMemoryError,
    OverloadedError,
    ShuttingDownError,
    StartingError,
    TextTowerMissingError,
)
from clipsrv.models.model import Model
from clipsrv.serving.embedder import DRAINING, HEALTHY, STARTING, Embedder, EmbedderSettings
from clipsrv.serving.engine import Pixels
from clipsrv.settings import ImageLimits
from tests.support.faulty import HangingEncoder
from tests.support.model import make_model
from tests.support.photos import cuttings
from tests.support.serving import eventually

IMAGES = cuttings(8)
SETTINGS = EmbedderSettings(max_batch_size=4, max_queue=16, max_queue_per_caller=16)


@asynccontextmanager
async def started(load: Callable[[], Model], settings: EmbedderSettings = SETTINGS) -> AsyncIterator[Embedder]:
    embedder = Embedder(load, settings)
    await embedder.start()
    try:
        yield embedder
    finally:
        await embedder.stop()


@pytest.fixture
def load(model: Model) -> Callable[[], Model]:
    return lambda: model


async def test_a_life_from_starting_to_draining(load: Callable[[], Model]) -> None:
    embedder = Embedder(load, SETTINGS)
    assert (embedder.status, embedder.model) == (STARTING, None)
    with pytest.raises(StartingError):
        embedder.check_open()
    with pytest.raises(StartingError):
        await embedder.embed_images(IMAGES)
    await embedder.start()
    assert embedder.status == HEALTHY
    embedder.check_open()
    embedder.drain()
    assert embedder.status == DRAINING
    with pytest.raises(ShuttingDownError):
        embedder.check_open()
    assert len((await embedder.embed_images(IMAGES[:2])).vectors) == 2, "what was accepted goes on"
    await embedder.stop()


async def test_vectors_come_in_the_order_asked_with_unit_length_and_timings(load: Callable[[], Model]) -> None:
    async with started(load) as embedder:
        together = await embedder.embed_images(IMAGES)
        for blob, vector in zip(IMAGES, together.vectors, strict=True):
            (alone,) = (await embedder.embed_images([blob])).vectors
            np.testing.assert_allclose(np.array(vector), np.array(alone), atol=1e-6)
            assert np.linalg.norm(np.array(vector)) == pytest.approx(1, abs=1e-6)
        assert together.bad == ()
        assert together.timings.decode > 0
        assert together.timings.inference > 0


class SlowToRead(Model):
    """Takes 20 ms longer to read an image."""

    def read_image(self, *arguments: Any, **options: Any) -> Pixels:
        time.sleep(0.02)
        return super().read_image(*arguments, **options)


async def test_waiting_for_a_thread_that_decodes_counts_as_queueing(model: Model) -> None:
    """Eight images and one thread: the last waits while seven are read."""
    slow = SlowToRead(**vars(model))
    async with started(lambda: slow, replace(SETTINGS, decode_threads=1)) as embedder:
        timings = (await embedder.embed_images(IMAGES)).timings
        assert timings.queue > 7 * 0.02 > timings.decode


async def test_every_bad_image_is_named_and_null_is_for_those_who_ask(load: Callable[[], Model]) -> None:
    blobs = [IMAGES[0], b"no", IMAGES[1], b""]
    async with started(load) as embedder:
        with pytest.raises(BadImagesError) as caught:
            await embedder.embed_images(blobs)
        assert [one.index for one in caught.value.bad] == [1, 3]
        outcome = await embedder.embed_images(blobs, null_on_error=True)
        assert [vector is None for vector in outcome.vectors] == [False, True, False, True]
        assert [(one.index, one.error.code) for one in outcome.bad] == [(1, "not_an_image"), (3, "empty_image")]
        assert embedder.admission.in_use == 0


async def test_limits_of_images_are_those_of_the_settings(load: Callable[[], Model]) -> None:
    settings = replace(SETTINGS, limits=ImageLimits(max_pixels=100))
    async with started(load, settings) as embedder:
        with pytest.raises(BadImagesError, match="too many pixels"):
            await embedder.embed_images(IMAGES[:1])


async def test_a_request_takes_all_its_slots_or_none(load: Callable[[], Model]) -> None:
    async with started(load) as embedder:
        with pytest.raises(OverloadedError):
            await embedder.embed_images(IMAGES * 3)
        assert embedder.admission.in_use == 0
        assert len((await embedder.embed_images(IMAGES * 2)).vectors) == 16


async def test_past_the_deadline_all_of_a_request_is_given_up(model: Model) -> None:
    gate = HangingEncoder()
    async with started(lambda: make_model(gate), replace(SETTINGS, deadline=0.2)) as embedder:
        gate.shut()
        with pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"):
            await embedder.embed_images(IMAGES)
        assert embedder.admission.in_use == 0
        gate.go_on.set()
        await eventually(lambda: embedder.engine is not None and embedder.engine.images.queued == 0)
        assert sum(gate.sizes) < len(IMAGES)


async def test_memory_that_is_not_there_for_decoding_is_out_of_memory(model: Model) -> None:
    class Full(Model):
        def read_image(self, *arguments: Any, **options: Any) -> Any:
            raise MemoryError

    async with started(lambda: Full(**vars(model))) as embedder:
        with pytest.raises(OutOfMemoryError, match="decode"):
            await embedder.embed_images(IMAGES[:3])
        assert embedder.admission.in_use == 0


async def test_cancelling_a_request_gives_everything_back(model: Model) -> None:
    gate = HangingEncoder()
    async with started(lambda: make_model(gate)) as embedder:
        gate.shut()
        task = asyncio.create_task(embedder.embed_images(IMAGES))
        await asyncio.to_thread(gate.entered.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert embedder.admission.in_use == 0
        gate.go_on.set()
        assert len((await embedder.embed_images(IMAGES)).vectors) == 8


async def test_stopping_fails_what_is_in_work(model: Model) -> None:
    gate = HangingEncoder()
    async with started(lambda: make_model(gate)) as embedder:
        gate.shut()
        task = asyncio.create_task(embedder.embed_images(IMAGES))
        await asyncio.to_thread(gate.entered.wait, 30)
        await embedder.stop()
        with pytest.raises(ShuttingDownError):
            await task
        gate.go_on.set()


async def test_texts_are_embedded_and_the_cut_ones_named(load: Callable[[], Model]) -> None:
    async with started(load) as embedder:
        outcome = await embedder.embed_texts(["a dog", "word " * 100])
        assert outcome.truncated == (1,)
        assert np.linalg.norm(np.array(outcome.vectors), axis=1) == pytest.approx([1, 1], abs=1e-6)
        with pytest.raises(InvalidTextError):
            await embedder.embed_texts(["fine", "\ud800"])


async def test_without_a_text_tower_there_are_no_texts(model: Model) -> None:
    async with started(lambda: replace(model, text_encoder=None, tokenizer=None)) as embedder:
        with pytest.raises(TextTowerMissingError, match="images only"):
            await embedder.embed_texts(["a"])
