"""The use case without HTTP: encoded images and texts in, unit vectors out, each request whole or not at all."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clipsrv.errors import (
    BadImagesError,
    DeadlineExceededError,
    ImageError,
    InferenceFailedError,
    InvalidTextError,
    ModelCorruptError,
    ModelNotOfferedError,
    ModelUnavailableError,
    OutOfMemoryError,
    OverloadedError,
    ShuttingDownError,
    StartingError,
    TextTowerMissingError,
)
from clipsrv.models.model import Model
from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.admission import Lease
from clipsrv.serving.embedder import DRAINING, STARTING, Embedder
from clipsrv.serving.engine import Pixels
from clipsrv.serving.outcome import Finished
from clipsrv.serving.stock import HEALTHY
from clipsrv.serving.visit import Visit
from clipsrv.settings import TEXTS_PER_SLOT, ImageLimits, ServingSettings
from clipsrv.text.clip import ClipTokenizer
from clipsrv.text.tokens import Tokens
from tests.support.faulty import HangingEncoder, SlowEncoder
from tests.support.library import Given
from tests.support.model import make_model
from tests.support.photos import cuttings
from tests.support.serving import eventually

IMAGES = cuttings(8)
#: Without a cache: what is asked for again is to be computed again.
SETTINGS = ServingSettings(max_batch_size=4, max_queue=16, max_queue_per_caller=16, cache_bytes=0)
MODELS = ("tiny", "other")


@asynccontextmanager
async def started(
    load: Callable[[str], Model] | Given = lambda name: make_model(), settings: ServingSettings = SETTINGS
) -> AsyncIterator[Embedder]:
    given = load if isinstance(load, Given) else Given(load, MODELS[:1], MODELS[1:])
    embedder = Embedder(given, settings)
    await embedder.start()
    try:
        yield embedder
    finally:
        await embedder.close()


async def test_a_life_from_starting_to_draining() -> None:
    embedder = Embedder(Given(lambda name: make_model()), SETTINGS)
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
    await embedder.close()
    with pytest.raises(ShuttingDownError):
        await embedder.embed_images(IMAGES[:2])


async def test_vectors_come_in_the_order_asked_with_unit_length_and_timings() -> None:
    async with started() as embedder:
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


async def test_waiting_for_a_thread_that_decodes_counts_as_queueing() -> None:
    """Eight images and one thread: the last waits while seven are read."""
    slow = SlowToRead(**vars(make_model()))
    async with started(lambda name: slow, replace(SETTINGS, decode_threads=1)) as embedder:
        timings = (await embedder.embed_images(IMAGES)).timings
        assert timings.queue > 7 * 0.02 > timings.decode


async def test_every_bad_image_is_named_and_null_is_for_those_who_ask() -> None:
    blobs = [IMAGES[0], b"no", IMAGES[1], b""]
    async with started() as embedder:
        with pytest.raises(BadImagesError) as caught:
            await embedder.embed_images(blobs)
        assert [one.index for one in caught.value.bad] == [1, 3]
        outcome = await embedder.embed_images(blobs, null_on_error=True)
        assert [vector is None for vector in outcome.vectors] == [False, True, False, True]
        assert [(one.index, one.error.code) for one in outcome.bad] == [(1, "not_an_image"), (3, "empty_image")]
        assert embedder.workshop.slots.in_use == 0


async def test_limits_of_images_are_those_of_the_settings() -> None:
    settings = replace(SETTINGS, limits=ImageLimits(max_pixels=100))
    async with started(settings=settings) as embedder:
        with pytest.raises(BadImagesError, match="too many pixels"):
            await embedder.embed_images(IMAGES[:1])


async def test_nothing_asked_is_nothing_to_wait_for() -> None:
    async with started() as embedder:
        assert (await embedder.embed_images([])).vectors == []
        assert (await embedder.embed_texts([])).vectors == []


async def test_a_request_takes_all_its_slots_or_none() -> None:
    async with started() as embedder:
        with pytest.raises(OverloadedError):
            await embedder.embed_images(IMAGES * 3)
        assert embedder.workshop.slots.in_use == 0
        assert len((await embedder.embed_images(IMAGES * 2)).vectors) == 16


async def test_past_the_deadline_all_of_a_request_is_given_up() -> None:
    gate = HangingEncoder()
    async with started(lambda name: make_model(gate), replace(SETTINGS, deadline=0.2)) as embedder:
        gate.shut()
        with pytest.raises(DeadlineExceededError, match=r"within 0\.2 s"):
            await embedder.embed_images(IMAGES)
        assert embedder.workshop.slots.in_use == 0
        gate.go_on.set()
        await eventually(lambda: embedder.engine is not None and embedder.engine.images.queued == 0)
        assert sum(gate.sizes) < len(IMAGES)


async def test_memory_that_is_not_there_for_decoding_is_out_of_memory() -> None:
    class Full(Model):
        def read_image(self, *arguments: Any, **options: Any) -> Any:
            raise MemoryError

    async with started(lambda name: Full(**vars(make_model()))) as embedder:
        with pytest.raises(OutOfMemoryError, match="decode"):
            await embedder.embed_images(IMAGES[:3])
        assert embedder.workshop.slots.in_use == 0


async def test_cancelling_a_request_gives_everything_back() -> None:
    gate = HangingEncoder()
    async with started(lambda name: make_model(gate)) as embedder:
        gate.shut()
        task = asyncio.create_task(embedder.embed_images(IMAGES))
        await asyncio.to_thread(gate.entered.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert embedder.workshop.slots.in_use == 0
        gate.go_on.set()
        assert len((await embedder.embed_images(IMAGES)).vectors) == 8


async def test_stopping_fails_what_is_in_work() -> None:
    gate = HangingEncoder()
    async with started(lambda name: make_model(gate)) as embedder:
        gate.shut()
        task = asyncio.create_task(embedder.embed_images(IMAGES))
        await asyncio.to_thread(gate.entered.wait, 30)
        embedder.stop()
        with pytest.raises(ShuttingDownError):
            await task
        gate.go_on.set()


async def test_an_image_that_decodes_for_long_does_not_keep_its_request_from_ending() -> None:
    go_on, began = threading.Event(), threading.Event()

    class Stuck(Model):
        def read_image(self, *arguments: Any, **options: Any) -> Pixels:
            began.set()
            go_on.wait(60)
            return super().read_image(*arguments, **options)

    async with started(lambda name: Stuck(**vars(make_model()))) as embedder:
        task = asyncio.create_task(embedder.embed_images(IMAGES[:1]))
        await asyncio.to_thread(began.wait, 30)
        embedder.stop()
        with pytest.raises(ShuttingDownError):
            await task
        go_on.set()


async def test_texts_are_embedded_and_the_cut_ones_named() -> None:
    async with started() as embedder:
        outcome = await embedder.embed_texts(["a dog", "word " * 100])
        assert outcome.truncated == (1,)
        assert np.linalg.norm(np.array(outcome.vectors), axis=1) == pytest.approx([1, 1], abs=1e-6)
        with pytest.raises(InvalidTextError):
            await embedder.embed_texts(["fine", "\ud800"])


async def test_without_a_text_tower_there_are_no_texts() -> None:
    async with started(lambda name: replace(make_model(), text_encoder=None, tokenizer=None)) as embedder:
        with pytest.raises(TextTowerMissingError, match="images only"):
            await embedder.embed_texts(["a"])


class Held:
    """A text tower that computes once it may."""

    packs = False

    def __init__(self, encoder: Encoder) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.warm_up, self.close = encoder.warm_up, encoder.close
        self._embed = encoder.embed

    def embed(self, batch: NDArray[Any]) -> Vectors:
        self.entered.set()
        self.go_on.wait(60)
        return self._embed(batch)


async def test_many_texts_fit_where_few_images_do_and_take_no_more_than_their_slots() -> None:
    model = make_model()
    assert model.text_encoder is not None
    tower = Held(model.text_encoder)
    async with started(lambda name: replace(model, text_encoder=tower)) as embedder:
        texts = [f"text {number}" for number in range(16 * TEXTS_PER_SLOT)]
        with pytest.raises(OverloadedError):
            await embedder.embed_texts([*texts, "one more"])
        task = asyncio.create_task(embedder.embed_texts(texts[: TEXTS_PER_SLOT + 1]))
        await asyncio.to_thread(tower.entered.wait, 30)
        assert embedder.workshop.slots.in_use == 2
        tower.go_on.set()
        await task
        assert len((await embedder.embed_texts(texts)).vectors) == 16 * TEXTS_PER_SLOT


async def test_texts_that_wait_are_one_batch_by_their_tokens_and_short_ones_are_not_padded_to_a_long_one() -> None:
    model, shapes = make_model(), list[tuple[int, ...]]()
    assert model.text_encoder is not None

    class Watched(Held):
        def embed(self, batch: NDArray[Any]) -> Vectors:
            shapes.append(batch.shape)
            return super().embed(batch)

    tower = Watched(model.text_encoder)
    async with started(
        lambda name: replace(model, text_encoder=tower), replace(SETTINGS, max_batch_size=4)
    ) as embedder:
        tasks = [asyncio.create_task(embedder.embed_texts(["a dog"]))]
        await asyncio.to_thread(tower.entered.wait, 30)
        texts = [f"text {number}" for number in range(20)]
        tasks += [asyncio.create_task(embedder.embed_texts(few)) for few in (texts, ["word " * 100])]
        await eventually(lambda: embedder.queued == 21)
        tower.go_on.set()
        await asyncio.gather(*tasks)
    longest = shapes[1][1]
    assert shapes == [(1, 4), (20, longest), (1, 77)]
    assert longest < 10


async def test_of_a_list_texts_of_like_length_share_a_batch_and_each_vector_is_in_its_place() -> None:
    model, shapes = make_model(), list[tuple[int, ...]]()
    tower, tokenizer = model.text_encoder, model.tokenizer
    assert tower is not None
    assert tokenizer is not None

    class Watched(Held):
        def embed(self, batch: NDArray[Any]) -> Vectors:
            shapes.append(batch.shape)
            return super().embed(batch)

    texts = [("word " * (1 + number * 7 % 12)).strip() for number in range(300)]
    tokens = [tokenizer.encode(text) for text in texts]
    alone = {one.length: tower.embed(one.ids[None, : one.length])[0] for one in tokens[:12]}
    watched = Watched(tower)
    watched.go_on.set()
    settings = replace(SETTINGS, max_batch_size=2, max_queue=32, max_queue_per_caller=32)
    async with started(lambda name: replace(model, text_encoder=watched), settings) as embedder:
        shapes.clear()
        vectors = (await embedder.embed_texts(texts)).vectors
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert sum(rows * length for rows, length in shapes) <= 1.15 * sum(one.length for one in tokens)
    for vector, one in zip(vectors, tokens, strict=True):
        assert vector is not None
        np.testing.assert_allclose(vector, alone[one.length], atol=1e-6)


async def test_of_a_list_texts_that_begin_alike_share_a_batch_where_that_is_computed_once() -> None:
    model, begins = make_model(), list[set[int]]()
    assert model.text_encoder is not None

    class Packing(Held):
        packs = True

        def embed(self, batch: NDArray[Any]) -> Vectors:
            begins.append(set(batch[:, 1].tolist()))
            return super().embed(batch)

    tower = Packing(model.text_encoder)
    tower.go_on.set()
    settings = replace(SETTINGS, max_batch_size=1)
    async with started(lambda name: replace(model, text_encoder=tower), settings) as embedder:
        begins.clear()
        await embedder.embed_texts([f"{word} {number}" for number in range(16) for word in ("cat", "a dog")])
    assert len(begins) > 1
    assert sum(len(found) - 1 for found in begins) <= 1


async def test_texts_are_tokenized_only_once_they_have_their_slots_and_not_on_the_loop() -> None:
    threads: list[str] = []

    class Watched(ClipTokenizer):
        def encode(self, text: str) -> Tokens:
            threads.append(threading.current_thread().name)
            return super().encode(text)

    def load(name: str) -> Model:
        model = make_model()
        assert model.tokenizer is not None
        watched = Watched.__new__(Watched)
        vars(watched).update(vars(model.tokenizer))
        return replace(model, tokenizer=watched)

    async with started(load) as embedder:
        threads.clear()
        with embedder.workshop.slots.take(16), pytest.raises(OverloadedError):
            await embedder.embed_texts(["a dog"])
        assert threads == []
        await embedder.embed_texts(["a dog", "a cat"])
        assert [name.startswith("tokenize") for name in threads] == [True, True]


async def test_the_items_of_a_request_are_computed_in_their_order() -> None:
    model, seen = make_model(), list[int]()
    assert model.text_encoder is not None
    assert model.tokenizer is not None
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
    ids = [int(model.tokenizer.encode(word).ids[1]) for word in words]

    class Watched(Held):
        def embed(self, batch: NDArray[Any]) -> Vectors:
            seen.extend(batch[:, 1])
            return super().embed(batch)

    tower = Watched(model.text_encoder)
    tower.go_on.set()
    settings = replace(SETTINGS, max_batch_size=1)
    async with started(lambda name: replace(model, text_encoder=tower), settings) as embedder:
        await embedder.embed_texts(words)
    assert seen == ids


# --- several models ---


async def test_a_model_is_named_or_the_default_and_loaded_when_it_is_first_asked_for() -> None:
    loaded: list[str] = []

    def load(name: str) -> Model:
        loaded.append(name)
        model = make_model()
        return replace(model, manifest=replace(model.manifest, name=name))

    async with started(load) as embedder:
        assert (await embedder.embed_images(IMAGES[:1])).model.manifest.name == "tiny"
        assert (await embedder.embed_images(IMAGES[:1], model="tiny")).model.manifest.name == "tiny"
        assert loaded == ["tiny"]
        others = await asyncio.gather(*(embedder.embed_images([blob], model="other") for blob in IMAGES))
        assert {outcome.model.manifest.name for outcome in others} == {"other"}
        assert loaded == ["tiny", "other"]
        with pytest.raises(ModelNotOfferedError, match="there are: tiny, other"):
            await embedder.embed_texts(["a"], model="third")
        assert embedder.workshop.slots.in_use == 0


async def test_a_model_that_loads_keeps_its_own_requests_waiting_until_their_deadline_and_nobody_elses() -> None:
    go_on = threading.Event()

    def load(name: str) -> Model:
        if name == "other":
            go_on.wait(60)
        return make_model()

    async with started(load, replace(SETTINGS, deadline=1)) as embedder:
        waiting = asyncio.create_task(embedder.embed_images(IMAGES[:1], model="other"))
        assert len((await embedder.embed_images(IMAGES[:2])).vectors) == 2
        assert not waiting.done()
        with pytest.raises(DeadlineExceededError):
            await waiting
        go_on.set()
        await embedder.embed_images(IMAGES[:1], model="other")


async def test_a_model_that_does_not_load_fails_its_requests_only_and_is_tried_again() -> None:
    broken = True

    tries = 0

    def load(name: str) -> Model:
        nonlocal tries
        if name == "other" and broken:
            tries += 1
            raise ModelCorruptError("/a/path: not today")
        return make_model()

    given = Given(load, MODELS[:1], MODELS[1:])
    async with started(given) as embedder:
        for _ in range(3):
            with pytest.raises(ModelUnavailableError, match="damaged"):
                await embedder.embed_images(IMAGES[:1], model="other")
        assert tries == 1, "what failed a moment ago is not tried again"
        with pytest.raises(ModelUnavailableError):
            embedder.check_open(model="other")
        await embedder.embed_images(IMAGES[:1])
        assert embedder.stock.states() == {"tiny": "healthy", "other": "failed"}
        broken, given.versions["other"] = False, "mended"
        await embedder.embed_images(IMAGES[:1], model="other")
        assert embedder.stock.states() == {"tiny": "healthy", "other": "healthy"}


async def test_a_model_that_does_not_warm_up_is_closed_again() -> None:
    class Cold(HangingEncoder):
        closed = False

        def warm_up(self, *arguments: Any, **options: Any) -> None:
            raise InferenceFailedError("it gives zeros")

        def close(self) -> None:
            self.closed = True

    tower = Cold()
    async with started(lambda name: make_model(tower if name == "other" else None)) as embedder:
        with pytest.raises(InferenceFailedError, match="zeros"):
            await embedder.embed_images(IMAGES[:1], model="other")
        assert tower.closed
        assert len(list(embedder.stock.shelf)) == 1


async def test_a_replaced_model_finishes_what_it_began_and_says_that_it_was_it() -> None:
    gates = [HangingEncoder(), HangingEncoder()]
    models = [make_model(gate) for gate in gates]
    later = iter(models)
    async with started(lambda name: next(later)) as embedder:
        gates[0].shut()
        before = asyncio.create_task(embedder.embed_images(IMAGES))
        await asyncio.to_thread(gates[0].entered.wait, 30)
        replacing = asyncio.create_task(embedder.stock.shelf.replace("tiny"))
        gates[0].go_on.set()
        await replacing
        assert (await embedder.embed_images(IMAGES[:1])).model is models[1]
        outcome = await before
        assert outcome.model is models[0]
        assert len(outcome.vectors) == len(IMAGES)
        await eventually(lambda: len(list(embedder.stock.shelf)) == 1)
        with pytest.raises(InferenceFailedError, match="closed"):
            models[0].image_encoder.embed(np.zeros((1, 3, 32, 32), np.float32))


async def test_a_slow_model_does_not_starve_a_fast_one() -> None:
    slow, fast, gate = SlowEncoder(0.05), HangingEncoder(), HangingEncoder()
    towers = {"tiny": gate, "slow": slow, "fast": fast}
    settings = replace(SETTINGS, max_queue=1000, max_queue_per_caller=1000)
    embedder = Embedder(Given(lambda name: make_model(towers[name]), ["tiny"], ["slow", "fast"]), settings)
    await embedder.start()
    for name in ("slow", "fast"):
        await embedder.embed_images(IMAGES[:1], model=name)
    gate.shut()
    tasks = [asyncio.create_task(embedder.embed_images(IMAGES[:1]))]  # holds the thread until all the others wait
    await asyncio.to_thread(gate.entered.wait, 30)
    before = len(slow.sizes)
    works = {name: asyncio.create_task(embedder.embed_images(IMAGES * 25, model=name)) for name in ("slow", "fast")}
    await eventually(lambda: embedder.queued == 400)
    gate.go_on.set()
    assert len((await works["fast"]).vectors) == 200  # fifty batches
    assert len(slow.sizes) - before < 25, "by turns of one batch each it would be fifty"
    works["slow"].cancel()
    await asyncio.gather(*tasks, works["slow"], return_exceptions=True)
    await embedder.close()


async def test_a_model_that_is_put_away_takes_all_it_had_with_it() -> None:
    """Its tokenizer alone is some twenty megabytes; a server that loads models on demand does so all day."""
    held: list[weakref.ref[object]] = []

    def load(name: str) -> Model:
        model = make_model()
        held.extend(map(weakref.ref, (model, model.image_encoder)))
        return model

    async with started(load) as embedder:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await embedder.embed_texts(["a", "b"], model="other")
                with pytest.raises(BadImagesError):
                    await embedder.embed_images([IMAGES[0], b"no"], model="other")
                await embedder.stock.shelf.evict("other")
            await asyncio.sleep(0.01)
            assert [one() is None for one in held] == [False] * 2 + [True] * 6
        finally:
            gc.enable()


# --- one by one ---


async def test_a_stream_holds_as_many_images_as_it_has_slots_and_keeps_one_model_to_its_end() -> None:
    blobs = IMAGES * 10
    most = 0
    async with started() as embedder:
        slots = embedder.workshop.slots

        async def embed(visit: Visit, blob: bytes, slot: Lease) -> object:
            nonlocal most
            with slot:
                most = max(most, slots.in_use)
                try:
                    return (await visit.embed_image(blob)).vector
                except ImageError as error:
                    return error.code

        with await embedder.visit(caller="stream") as visit:
            tasks = []
            for number, blob in enumerate(blobs):
                if number == 40:
                    await embedder.stock.shelf.replace("tiny")
                slot = await slots.wait(1, "stream")
                tasks.append(asyncio.create_task(embed(visit, blob if number != 7 else b"no", slot)))
            results = await asyncio.gather(*tasks)
        truths = (await embedder.embed_images(IMAGES)).vectors
        assert most <= 16
        assert slots.in_use == 0
        assert results.pop(7) == "not_an_image"
        for number, result in enumerate(results):
            np.testing.assert_allclose(np.array(result), np.array(truths[(number + (number >= 7)) % 8]), atol=1e-6)
        text = await visit_text(embedder, "word " * 100)
        assert text.truncated


async def visit_text(embedder: Embedder, text: str) -> Finished:
    with await embedder.visit() as visit:
        return await visit.embed_text(text)
