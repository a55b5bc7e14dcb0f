"""What was asked for is not computed again, nor is what is being computed; and nobody gets what is another's."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsrv.errors import BadImagesError, InferenceFailedError, InvalidTextError, ShuttingDownError
from clipsrv.images.region import Cropped, Region
from clipsrv.models.model import Model
from clipsrv.runtime.encoder import TextEncoder
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.flights import _Flight
from clipsrv.serving.observer import HIT, MISS, SHARED, Observer
from clipsrv.serving.prompts import Prompt
from clipsrv.settings import ServingSettings
from clipsrv.text.tokens import Tokens
from tests.support.faulty import BrokenEncoder, FaultyEncoder, HangingEncoder, PoisonedEncoder
from tests.support.library import Given
from tests.support.model import CountingTexts, make_model, truth
from tests.support.photos import cuttings, encode, opened, photo
from tests.support.serving import eventually

IMAGES = cuttings(6)
#: One that a PoisonedEncoder fails at.
BLACK = encode(Image.new("RGB", (40, 30)))
#: More bytes than are hashed on the event loop.
LARGE = encode(opened("rocket.jpg"), "JPEG", quality=95)
SETTINGS = ServingSettings(max_batch_size=4, max_queue=64, max_queue_per_caller=64, cache_bytes=2**20)


class Counting(Observer):
    """What of the cache is told."""

    def __init__(self) -> None:
        self.outcomes, self.made_room, self.foreign = Counter[str](), 0, 0

    def looked_up(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def evicted(self, count: int) -> None:
        self.made_room += count

    def met_unknown_script(self) -> None:
        self.foreign += 1


class Reading(Model):
    """Counts how often an image and a text are read."""

    def read_image(self, *arguments: Any, **options: Any) -> Any:
        READ["images"] += 1
        return super().read_image(*arguments, **options)

    def read_text(self, text: str, own: str | None = None) -> Tokens:
        READ["texts"] += 1
        return super().read_text(text, own)


READ = Counter[str]()


@asynccontextmanager
async def started(
    encoder: FaultyEncoder | None = None,
    settings: ServingSettings = SETTINGS,
    texts: TextEncoder | None = None,
    **facts: Any,
) -> AsyncIterator[tuple[Embedder, Counting]]:
    """A fresh embedder of the small model with these towers, and what it tells."""
    observer, model = Counting(), make_model(encoder or FaultyEncoder())
    model = replace(model, text_encoder=texts or model.text_encoder)
    if facts:
        source = {**model.manifest.source, **facts}
        model = replace(model, manifest=replace(model.manifest, source=source))
    embedder = Embedder(Given(lambda name: Reading(**vars(model)), others=["other"]), settings, observer)
    await embedder.start()
    READ.clear()
    try:
        yield embedder, observer
    finally:
        await embedder.close()


async def test_what_was_computed_is_known_to_the_bit() -> None:
    encoder = FaultyEncoder()
    async with started(encoder) as (embedder, observer):
        first = await embedder.embed_images([IMAGES[0], LARGE])
        again = await embedder.embed_images([LARGE, memoryview(IMAGES[0]), IMAGES[1]])
        assert np.array_equal(np.array(again.vectors[:2]), np.array(first.vectors[::-1]))
        np.testing.assert_allclose(np.array(again.vectors[2]), truth(IMAGES[1]), atol=1e-6)
        assert (first.timings.hits, first.timings.misses) == (0, 2)
        assert (again.timings.hits, again.timings.misses) == (2, 1)
        assert (sum(encoder.sizes), READ["images"]) == (3, 3)
        assert observer.outcomes == {MISS: 3, HIT: 2}
        alone = await embedder.embed_images([LARGE])
        assert (alone.timings.decode, alone.timings.queue, alone.timings.inference) == (0, 0, 0)
        assert alone.timings.cache > 0


async def test_a_text_that_is_known_says_all_that_it_said_at_first() -> None:
    long, short = "word " * 20_000, "a cat"
    async with started(languages="en") as (embedder, observer):
        answers = [await embedder.embed_texts([long, short, "赤いドレス"]) for _ in range(2)]
        assert answers[0].truncated == answers[1].truncated == (0,)
        assert answers[0].unknown_script == answers[1].unknown_script == (2,)
        assert answers[0].tokens == answers[1].tokens > 77
        assert np.array_equal(np.array(answers[0].vectors), np.array(answers[1].vectors))
        assert observer.foreign == 2, "and is counted each time"
        assert READ["texts"] == 3
        assert (answers[1].timings.hits, answers[1].timings.misses) == (3, 0)


async def test_one_text_under_two_labels_is_judged_by_each() -> None:
    async with started(languages="en") as (embedder, _):
        for _ in range(2):
            _, texts = await embedder.embed_beside(IMAGES[0], [Prompt("a 赤い", "赤い"), Prompt("a 赤い", "a 赤い")])
            assert texts.unknown_script == (0,)
            assert np.array_equal(np.array(texts.vectors[0]), np.array(texts.vectors[1]))


async def test_what_stands_twice_in_a_request_is_computed_once() -> None:
    encoder = FaultyEncoder()
    async with started(encoder) as (embedder, observer):
        outcome = await embedder.embed_items([IMAGES[0], "a cat", LARGE, IMAGES[0], "a cat", LARGE, *["a cat"] * 40])
        assert (sum(encoder.sizes), READ["images"]) == (2, 2)
        assert outcome.timings.misses == 46
        assert observer.outcomes[MISS] == 3
        assert np.array_equal(np.array(outcome.vectors[0]), np.array(outcome.vectors[3]))
        np.testing.assert_allclose(np.array(outcome.vectors[5]), truth(LARGE), atol=1e-6)
        assert len({np.array(vector).tobytes() for vector in outcome.vectors}) == 3


async def test_requests_at_once_for_the_same_have_it_computed_once() -> None:
    encoder = HangingEncoder()
    async with started(encoder) as (embedder, observer):
        encoder.shut()
        asking = [asyncio.create_task(embedder.embed_images([blob])) for blob in (LARGE, IMAGES[0]) for _ in range(10)]
        await asyncio.to_thread(encoder.entered.wait, 60)
        await eventually(lambda: observer.outcomes.total() == 20)
        late = asyncio.create_task(embedder.embed_images([LARGE]))  # while it is being computed
        await eventually(lambda: observer.outcomes.total() == 21)
        encoder.go_on.set()
        outcomes = await asyncio.gather(*asking, late)
        assert (sum(encoder.sizes), READ["images"]) == (2, 2)
        assert observer.outcomes == {MISS: 2, SHARED: 19}
        for outcome, blob in zip(outcomes, [*[LARGE] * 10, *[IMAGES[0]] * 10, LARGE], strict=True):
            np.testing.assert_allclose(np.array(outcome.vectors[0]), truth(blob), atol=1e-6)


async def test_texts_that_were_computed_while_they_were_read_are_not_computed_again() -> None:
    counting = CountingTexts()
    async with started(texts=counting) as (embedder, observer):
        warm = counting.texts
        outcomes = await asyncio.gather(*(embedder.embed_texts(["a cat", "a dog"]) for _ in range(50)))
        assert counting.texts - warm == observer.outcomes[MISS] == 2
        assert observer.outcomes.total() == 100
        assert len({np.array(outcome.vectors).tobytes() for outcome in outcomes}) == 1


async def test_who_asked_first_may_go() -> None:
    encoder = HangingEncoder()
    async with started(encoder) as (embedder, observer):
        encoder.shut()
        first, second = (asyncio.create_task(embedder.embed_images([LARGE])) for _ in range(2))
        await asyncio.to_thread(encoder.entered.wait, 60)
        await eventually(lambda: observer.outcomes.total() == 2)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        encoder.go_on.set()
        np.testing.assert_allclose(np.array((await second).vectors[0]), truth(LARGE), atol=1e-6)
        assert sum(encoder.sizes) == 1
        assert embedder.workshop.slots.in_use == 0


async def test_what_failed_is_not_kept() -> None:
    encoder = BrokenEncoder()
    async with started(encoder) as (embedder, _):
        encoder.broken = True
        for error in await asyncio.gather(*(embedder.embed_images([LARGE]) for _ in range(3)), return_exceptions=True):
            assert isinstance(error, InferenceFailedError)
        encoder.broken = False
        np.testing.assert_allclose(np.array((await embedder.embed_images([LARGE])).vectors[0]), truth(LARGE), atol=1e-6)
        for _ in range(2):
            with pytest.raises(BadImagesError) as caught:
                await embedder.embed_images([b"no", IMAGES[0], b"no", LARGE[:-1000]])
            assert [(one.index, one.error.code) for one in caught.value.bad] == [
                (0, "not_an_image"),
                (2, "not_an_image"),
                (3, "truncated_image"),
            ]
            with pytest.raises(InvalidTextError):
                await embedder.embed_texts(["a cat", "\ud800"])


async def test_of_a_request_that_has_failed_nothing_more_is_computed() -> None:
    encoder = HangingEncoder()
    async with started(encoder) as (embedder, _):
        encoder.shut()
        (holding,) = [asyncio.create_task(embedder.embed_images([LARGE]))]
        await asyncio.to_thread(encoder.entered.wait, 60)
        with pytest.raises(BadImagesError):
            await embedder.embed_images([b"no", *IMAGES])
        encoder.go_on.set()
        await holding
        assert sum(encoder.sizes) == 1


async def test_parts_of_one_image_and_the_models_have_each_their_own() -> None:
    other = FaultyEncoder()
    async with started(other) as (embedder, observer):
        left, right = Cropped(LARGE, Region(0, 0, 300, 400)), Cropped(LARGE, Region(300, 0, 300, 400))
        for _ in range(2):
            found = (await embedder.embed_images([left, LARGE, right])).vectors
            assert len({np.array(vector).tobytes() for vector in found}) == 3
        assert observer.outcomes == {MISS: 3, HIT: 3}
    models = {"tiny": make_model(), "other": make_model()}
    negated = replace(models["other"].manifest, created="2026-02-02T00:00:00+00:00")  # converted anew, with the same id
    models["other"] = replace(models["other"], manifest=negated, image_encoder=Negated())
    embedder = Embedder(Given(lambda name: models[name], ["tiny", "other"]), SETTINGS)
    await embedder.start()
    for _ in range(2):
        one, two = [await embedder.embed_images([LARGE], model=name) for name in models]
        assert one.model.embedding_id == two.model.embedding_id
        np.testing.assert_allclose(np.array(one.vectors[0]), -np.array(two.vectors[0]), atol=1e-6)
    await embedder.close()


class Negated(FaultyEncoder):
    def features(self, batch: Any) -> Any:
        return -super().features(batch)


async def test_a_hit_waits_for_nothing_that_the_engine_does() -> None:
    encoder = HangingEncoder()
    async with started(encoder, replace(SETTINGS, decode_threads=1)) as (embedder, _):
        known = await embedder.embed_items([LARGE, "a cat", "word " * 20_000])
        encoder.shut()
        busy = [asyncio.create_task(embedder.embed_images([blob])) for blob in IMAGES]
        await asyncio.to_thread(encoder.entered.wait, 60)
        async with asyncio.timeout(60):
            again = await embedder.embed_items([LARGE, "a cat", "word " * 20_000])
        assert np.array_equal(np.array(again.vectors), np.array(known.vectors))
        assert not any(task.done() for task in busy)
        encoder.go_on.set()
        await asyncio.gather(*busy)


async def test_stopping_fails_all_who_wait_for_the_same() -> None:
    encoder = HangingEncoder()
    async with started(encoder) as (embedder, observer):
        encoder.shut()
        asking = [asyncio.create_task(embedder.embed_images([photo("rocket.jpg")])) for _ in range(3)]
        await asyncio.to_thread(encoder.entered.wait, 60)
        await eventually(lambda: observer.outcomes.total() == 3)
        embedder.stop()
        for error in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(error, ShuttingDownError)
        encoder.go_on.set()


async def test_what_was_asked_for_longest_ago_is_computed_anew() -> None:
    encoder = FaultyEncoder()
    async with started(encoder, replace(SETTINGS, cache_bytes=2000)) as (embedder, observer):
        for blob in (*IMAGES[:3], IMAGES[0], IMAGES[2]):
            await embedder.embed_images([blob])
        assert sum(encoder.sizes) == 4
        assert observer.made_room == 2
        assert embedder.workshop.cache is not None
        assert embedder.workshop.cache.size <= 2000


async def test_without_a_cache_everything_is_computed_the_same_twice_too() -> None:
    encoder = FaultyEncoder()
    async with started(encoder, replace(SETTINGS, cache_bytes=0)) as (embedder, observer):
        for _ in range(2):
            outcome = await embedder.embed_items([LARGE, "a cat", LARGE, "a cat"])
            assert (outcome.timings.hits, outcome.timings.misses, outcome.timings.cache) == (0, 0, 0)
        assert sum(encoder.sizes) == READ["images"] == READ["texts"] == 4
        assert not observer.outcomes


async def test_no_work_is_left_of_what_was_shared_failed_or_given_up_even_while_no_collector_runs() -> None:
    def left() -> int:
        return sum(type(one) is _Flight for one in gc.get_objects())  # not isinstance, which wakes lazy modules

    async with started(PoisonedEncoder("raise")) as (embedder, _):
        gc.collect()
        gc.disable()
        try:
            for number in range(10):
                asking = [asyncio.create_task(embedder.embed_images([BLACK + bytes([number])])) for _ in range(4)]
                asking += [asyncio.create_task(embedder.embed_images([LARGE], caller=caller)) for caller in "aab"]
                asking += [asyncio.create_task(embedder.embed_images([LARGE[:-9999], IMAGES[0]])) for _ in range(2)]
                asking += [asyncio.create_task(embedder.embed_texts(["a", text])) for text in ("b", "\ud800")]
                await asyncio.sleep(0.002 * (number % 3))
                for task in asking[::3]:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
            await eventually(lambda: not left())
        finally:
            gc.enable()
