"""Images as they come, without HTTP: a window of them in work, one model to the end, and nothing held afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import pytest

from clipsrv.errors import ClipsrvError, ImageError, ModelUnavailableError, OverloadedError, ShuttingDownError
from clipsrv.images.region import Encoded
from clipsrv.models.model import Model
from clipsrv.serving.embedder import Embedder
from clipsrv.serving.outcome import Finished
from clipsrv.serving.stream import Done, Stream
from clipsrv.settings import ServingSettings
from tests.support.faulty import HangingEncoder
from tests.support.library import Given
from tests.support.model import make_model
from tests.support.photos import cuttings
from tests.support.serving import eventually

IMAGES = cuttings(8)
#: Four batches of two are eight in work.
SETTINGS = ServingSettings(max_batch_size=2, max_queue=24, max_queue_per_caller=16, deadline=30)


@asynccontextmanager
async def started(model: Model | None = None, settings: ServingSettings = SETTINGS) -> AsyncIterator[Embedder]:
    embedder = Embedder(Given(lambda name: model or make_model()), settings)
    try:
        await embedder.start()
        yield embedder
    finally:
        await embedder.close()


@dataclass
class Source:
    """Brings `blobs`, and then fails with `error` if there is one; knows how many it brought and how many are held."""

    blobs: Sequence[bytes]
    error: ClipsrvError | None = None
    brought: int = 0
    held: int = 0

    async def images(self) -> AsyncIterator[AbstractContextManager[bytes | memoryview | ClipsrvError]]:
        for blob in self.blobs:
            self.brought += 1
            yield _Held(self, blob)
        if self.error:
            raise self.error


async def collect(stream: Stream, source: Source, done: list[Done]) -> None:
    """Adds all that is done to the list."""
    async with aclosing(stream.embed(source.images())) as results:
        async for some in results:
            done += some


@dataclass
class _Held:
    source: Source
    blob: bytes

    def __enter__(self) -> bytes:
        self.source.held += 1
        return self.blob

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.held -= 1


async def test_a_stream_holds_a_window_of_images_and_keeps_one_model_to_its_end() -> None:
    source, found, most = Source(IMAGES * 20), dict[int, object](), 0
    async with started() as embedder:
        slots = embedder.workshop.slots
        with await embedder.open_stream(caller="stream") as stream:
            first = stream.visit.model
            async for done in stream.embed(source.images()):
                most = max(most, slots.in_use, source.held)
                if len(found) < 40 <= len(found) + len(done):
                    await embedder.stock.shelf.replace("tiny")
                for one in done:
                    assert isinstance(one.result, Finished)
                    found[one.place] = one.result.vector
            assert stream.visit.model is first
            assert embedder.model is not first
        assert most <= SETTINGS.stream_window == 8
        assert (slots.in_use, source.held) == (0, 0)
        truths = (await embedder.embed_images(IMAGES)).vectors
    assert set(found) == set(range(160))
    for place, vector in found.items():
        np.testing.assert_allclose(np.array(vector), np.array(truths[place % 8]), atol=1e-6)


async def test_whoever_does_not_take_what_is_done_stops_what_comes() -> None:
    source = Source(IMAGES * 20)
    async with started() as embedder:
        with await embedder.open_stream() as stream:
            async with aclosing(stream.embed(source.images())) as results:
                await anext(results)
                await asyncio.sleep(0.3)
                assert source.brought <= 16
        assert (source.held, embedder.workshop.slots.in_use) == (0, 0)


@pytest.mark.parametrize("began", [False, True])
async def test_a_stream_that_is_left_in_the_middle_leaves_nothing_behind(began: bool) -> None:
    encoder, source = HangingEncoder(), Source(IMAGES * 20)
    async with started(make_model(encoder)) as embedder:
        encoder.shut()

        async def read() -> None:
            with await embedder.open_stream() as stream:
                await collect(stream, source, [])

        reading = asyncio.create_task(read())
        await eventually(lambda: source.held == 8 if began else source.held > 0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert (source.held, embedder.workshop.slots.in_use) == (0, 0)
        encoder.go_on.set()
        assert len((await embedder.embed_images(IMAGES)).vectors) == 8


async def test_what_is_wrong_with_the_source_is_raised_after_all_that_had_come() -> None:
    source = Source([*IMAGES, b"no image"], ImageError("no more"))
    done: list[Done] = []
    async with started() as embedder:
        with await embedder.open_stream() as stream, pytest.raises(ImageError, match="no more"):
            await collect(stream, source, done)
        assert (source.held, embedder.workshop.slots.in_use) == (0, 0)
    assert sorted(one.place for one in done) == list(range(9))
    assert [one.place for one in done if isinstance(one.result, ClipsrvError)] == [8]


async def test_a_stream_that_finds_no_slot_for_as_long_as_an_image_may_take_gives_up() -> None:
    settings = ServingSettings(max_batch_size=2, max_queue=4, deadline=0.2)
    source = Source(IMAGES)
    async with started(settings=settings) as embedder:
        with await embedder.open_stream() as stream, embedder.workshop.slots.take(4), pytest.raises(OverloadedError):
            await collect(stream, source, [])
        assert (source.held, embedder.workshop.slots.in_use) == (0, 0)


async def test_once_everything_is_given_up_so_is_a_stream() -> None:
    encoder, source = HangingEncoder(), Source(IMAGES * 20)
    async with started(make_model(encoder)) as embedder:
        encoder.shut()
        with await embedder.open_stream() as stream:
            results = stream.embed(source.images())
            reading = asyncio.ensure_future(anext(results))
            await eventually(lambda: source.held == 8)
            embedder.stop()
            with pytest.raises(ShuttingDownError):
                await reading
            assert source.brought <= 9
        assert (source.held, embedder.workshop.slots.in_use) == (0, 0)
        encoder.go_on.set()
        with pytest.raises(ShuttingDownError):
            await embedder.open_stream()


@pytest.mark.parametrize("exchanged", [False, True])
async def test_a_stream_makes_way_for_a_model_that_needs_its_room_and_goes_on_with_its_own(exchanged: bool) -> None:
    """With room for one model: others wait for what is in work and not for the end of the stream."""
    made: list[str] = []

    def load(name: str) -> Model:
        made.append(name)
        model = make_model()
        if exchanged and made.count("tiny") == 2:
            source = {**model.manifest.source, "weights_sha256": "1" * 64}
            return replace(model, manifest=replace(model.manifest, source=source))
        return model

    settings = replace(SETTINGS, max_loaded=1)
    coming, done = asyncio.Queue[bytes | None](), list[Done]()

    async def images() -> AsyncIterator[AbstractContextManager[Encoded | ClipsrvError]]:
        while (blob := await coming.get()) is not None:
            yield nullcontext(blob)

    embedder = Embedder(Given(load, others=["other"]), settings)
    try:
        await embedder.start()
        with await embedder.open_stream() as stream:

            async def take() -> None:
                async for some in stream.embed(images()):
                    done.extend(some)

            taking = asyncio.create_task(take())
            for image in IMAGES:
                coming.put_nowait(image)
            await eventually(lambda: len(done) == 8)
            asked = asyncio.create_task(embedder.embed_images(IMAGES[:1], model="other"))
            await eventually(lambda: stream.visit.is_wanted_back)
            assert not asked.done()
            for blob in (*IMAGES, None):
                coming.put_nowait(blob)
            assert (await asked).name == "other"
            if exchanged:
                with pytest.raises(ModelUnavailableError) as raised:
                    await taking
                assert raised.value.code == "model_unavailable"
                assert len(done) == 8
            else:
                await taking
                assert sorted(one.place for one in done) == list(range(16))
        assert made == ["tiny", "other", "tiny"]
        assert embedder.workshop.slots.in_use == 0
    finally:
        await embedder.close()
