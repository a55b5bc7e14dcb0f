"""The use case: encoded images or texts in, unit vectors out. Joins admission, decoding, batching and the model.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from clipsrv.errors import (
    BadImage,
    BadImagesError,
    DeadlineExceededError,
    ImageError,
    OutOfMemoryError,
    ShuttingDownError,
    StartingError,
    TextTowerMissingError,
)
from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import reuse_memory
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.admission import Admission
from clipsrv.serving.engine import Engine, Pixels
from clipsrv.serving.observer import Observer
from clipsrv.serving.pool import DecodePool
from clipsrv.settings import ImageLimits

STARTING, HEALTHY, UNHEALTHY, DRAINING = "starting", "healthy", "unhealthy", "draining"


@dataclass(frozen=True)
class EmbedderSettings:
    """Times in seconds. `decode_threads` decode at once; `max_pixels_in_flight` bounds what they decode together.

    One caller may hold at most `max_queue_per_caller` of `max_queue` slots. An inference longer than `deadline` counts
    as hung, and after `probe_after` without any one is made to see that it still works.
    """

    max_batch_size: int = 8
    max_queue: int = 256
    max_queue_per_caller: int | None = None
    decode_threads: int = 2
    max_pixels_in_flight: int = 100_000_000
    deadline: float = 60.0
    probe_after: float = 60.0
    limits: ImageLimits = field(default_factory=ImageLimits)


@dataclass
class Timings:
    """Where a request's time went, in seconds: the longest of its items in each stage. `queue` is both waits, for a
    thread that decodes and for a batch."""

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0

    def add(self, *, decode: float = 0.0, queue: float = 0.0, inference: float = 0.0) -> None:
        self.decode = max(self.decode, decode)
        self.queue = max(self.queue, queue)
        self.inference = max(self.inference, inference)


@dataclass(frozen=True)
class Outcome:
    """`vectors` in the order asked, None where `bad` says why; `truncated` are the indices of texts cut short."""

    vectors: list[Vectors | None]
    timings: Timings
    bad: tuple[BadImage, ...] = ()
    truncated: tuple[int, ...] = ()


class Embedder:
    """Serves one model. `start` once, then any number of `embed_*` at once, then `stop`."""

    def __init__(self, load: Callable[[], Model], settings: EmbedderSettings, observer: Observer | None = None) -> None:
        """`load` opens the model; it runs in a thread, so the server can answer meanwhile."""
        self.admission = Admission(settings.max_queue, "image slots", per_holder=settings.max_queue_per_caller)
        self.budget = PixelBudget(settings.max_pixels_in_flight)
        self.engine: Engine | None = None  # once it is warm
        self._load, self._settings = load, settings
        # Not the loop's own threads: their end is waited for when the loop ends.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._observer = observer or Observer()
        self._draining = False
        self._decoders = DecodePool(settings.decode_threads)
        reuse_memory(settings.decode_threads)

    @property
    def model(self) -> Model | None:
        """The model once it is warm."""
        return self.engine.model if self.engine else None

    @property
    def fault(self) -> str | None:
        """What keeps the server from working, in a word: failing, hanging or silent inference, hung decoding; or None.

        Threads that hang cannot be ended: only a restart cures hanging and decoding.
        """
        if 2 * self._decoders.lost(self._settings.deadline) > self._decoders.threads:
            return "decoding"
        return self.engine.fault if self.engine else None

    @property
    def status(self) -> str:
        """starting, healthy, unhealthy (there is a `fault`) or draining."""
        if self._draining:
            return DRAINING
        if self.engine is None:
            return STARTING
        return UNHEALTHY if self.fault else HEALTHY

    async def start(self) -> None:
        """Loads and warms the model. Raises StartError or EngineError."""
        settings = self._settings
        engine = Engine(
            await asyncio.get_running_loop().run_in_executor(self._loader, self._load),
            settings.max_batch_size,
            hang_after=settings.deadline,
            probe_after=settings.probe_after,
            observer=self._observer,
        )
        await engine.start(sorted({1, settings.max_batch_size}))
        self.engine = engine

    def drain(self) -> None:
        """From now on `check_open` refuses; what was accepted goes on."""
        self._draining = True

    async def stop(self) -> None:
        """Ends the engine: whatever it still holds fails with ShuttingDownError."""
        self.drain()
        if self.engine is not None:
            await self.engine.stop()
        self._decoders.stop()
        self._loader.shutdown(wait=False)

    async def embed_images(
        self, blobs: Sequence[bytes | memoryview], *, caller: Hashable = None, null_on_error: bool = False
    ) -> Outcome:
        """Unit vectors of encoded images. Callers take turns in both queues, and so do the requests of one caller.

        Raises BadImagesError naming every image that cannot be used (unless `null_on_error`, which leaves None in
        its place), OverloadedError, DeadlineExceededError, StartingError, ShuttingDownError or EngineError.
        """
        engine, settings, timings = self._running(), self._settings, Timings()
        vectors: list[Vectors | None] = [None] * len(blobs)
        bad: list[BadImage] = []
        request = object()

        def decode(blob: bytes | memoryview) -> tuple[Pixels, float, float]:
            started = time.monotonic()
            return engine.model.read_image(blob, settings.limits, self.budget), started, time.monotonic() - started

        async def embed(index: int) -> None:
            asked = time.monotonic()
            try:
                pixels, started, seconds = await self._decoders.run(partial(decode, blobs[index]), caller, request)
            except ImageError as error:
                bad.append(BadImage(index, error))
                return
            except MemoryError:
                raise OutOfMemoryError("Not enough memory to decode this image.") from None
            timings.add(decode=seconds)
            self._observer.decoded(seconds)
            if null_on_error or not bad:  # otherwise the request has failed, and only the other bad ones matter
                done = await engine.images.submit(pixels, caller, request)
                timings.add(queue=started - asked + done.queued, inference=done.computed)
                vectors[index] = done.value

        await self._admitted([embed(index) for index in range(len(blobs))], caller)
        bad.sort(key=lambda one: one.index)
        if bad and not null_on_error:
            raise BadImagesError(bad)
        return Outcome(vectors, timings, bad=tuple(bad))

    async def embed_texts(self, texts: Sequence[str], *, caller: Hashable = None) -> Outcome:
        """Unit vectors of texts. Raises InvalidTextError, TextTowerMissingError, and as `embed_images`."""
        engine, timings, request = self._running(), Timings(), object()
        batcher, tokenizer = engine.texts, engine.model.tokenizer
        if batcher is None or tokenizer is None:
            name = engine.model.manifest.name
            raise TextTowerMissingError(f"{name} is served without a text tower: it embeds images only.")
        tokens = [tokenizer.encode(text) for text in texts]
        vectors: list[Vectors | None] = [None] * len(texts)

        async def embed(index: int) -> None:
            done = await batcher.submit(tokens[index], caller, request)
            timings.add(queue=done.queued, inference=done.computed)
            vectors[index] = done.value

        await self._admitted([embed(index) for index in range(len(texts))], caller)
        return Outcome(vectors, timings, truncated=tuple(index for index, one in enumerate(tokens) if one.truncated))

    def check_open(self, caller: Hashable = None) -> None:
        """Refuses what cannot be served now, before anything is read.

        Raises StartingError, ShuttingDownError, or OverloadedError if not one slot is free for `caller`.
        """
        if self._draining:
            raise ShuttingDownError("The server is shutting down.")
        self._running()
        self.admission.take(1, caller).release()

    def _running(self) -> Engine:
        if self.engine is None:
            raise StartingError("The model is still loading. Try again in a moment.")
        return self.engine

    async def _admitted(self, work: list[Coroutine[Any, Any, None]], caller: Hashable) -> None:
        """Runs the items of a request at once, within its slots and its deadline; the first error ends all."""
        try:
            with self.admission.take(len(work), caller):
                async with asyncio.timeout(self._settings.deadline), asyncio.TaskGroup() as group:
                    while work:
                        group.create_task(work.pop())
        except TimeoutError:
            raise DeadlineExceededError(
                f"Not finished within {self._settings.deadline:g} s. Send fewer images at once, or try later."
            ) from None
        except ExceptionGroup as group_of_errors:
            raise _first(group_of_errors) from None
        finally:
            for coroutine in work:
                coroutine.close()


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
