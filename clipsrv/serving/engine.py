"""One running model: its towers, each behind its batcher, in a borrowed workshop; watched, so that health is honest.

Healthy means that inference works: after a while without any, one is made to find out. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import ClipsrvError, ImageError, OutOfMemoryError, TextTowerMissingError
from clipsrv.images.region import Encoded
from clipsrv.models.known import in_words
from clipsrv.models.model import Model
from clipsrv.models.texts import TOKENS_PER_IMAGE, embed_tokens
from clipsrv.providers.table import provider
from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.batcher import Batcher
from clipsrv.serving.flights import Flights
from clipsrv.serving.keys import space_of
from clipsrv.serving.observer import Observer
from clipsrv.serving.outcome import Finished, Timings
from clipsrv.serving.prompts import Prompt
from clipsrv.serving.reminder import Reminder
from clipsrv.serving.workshop import Workshop
from clipsrv.text.tokens import Tokens

logger = logging.getLogger(__name__)

Pixels = NDArray[np.float32]
ImageBatcher = Batcher[Pixels, Vectors]
TextBatcher = Batcher[Tokens, Vectors]

#: Inferences of single items failing in a row after which the engine is taken to be broken.
_FAILURES_TO_UNHEALTHY = 3
#: Seconds between two looks at the engine, and before a batcher that died is started again.
_LOOK, _RESTART = 1.0, 0.1


class Engine:
    """Runs `model`, known by `name`, until closed. Times in seconds."""

    def __init__(self, name: str, model: Model, workshop: Workshop, observer: Observer) -> None:
        self.name, self.model = name, model
        self._workshop, self._settings, self.observer = workshop, workshop.settings, observer
        self.cache, self.hashing, self.space = workshop.cache, workshop.hashing, space_of(model)
        #: What is under way: images being read, and vectors being computed, each by its key in `space`.
        self.reads: Flights[tuple[Pixels, Timings]] = Flights()
        self.vectors: Flights[Finished] = Flights()
        self._share = workshop.inference.share()
        size = model.manifest.preprocess.crop_size
        most = self._settings.max_batch_size
        self.images: ImageBatcher = self._batcher(partial(_embed_stack, model.image_encoder), most)
        self.texts: TextBatcher | None = None
        # Not zeros, which a model without offsets would turn into a vector of zeros, and that is a failure.
        ramp = np.linspace(-1, 1, 3 * size * size, dtype=np.float32).reshape(3, size, size)
        self._probes: list[tuple[Batcher[Any, Vectors], Any]] = [(self.images, ramp)]
        if model.text_encoder is not None and model.tokenizer is not None:
            embed = partial(embed_tokens, model.text_encoder, run_cost=provider(model.device).run_cost)
            self.texts = self._batcher(embed, most * TOKENS_PER_IMAGE, lambda tokens: tokens.length)
            self._probes.append((self.texts, model.tokenizer.encode("a photo")))
        self._tasks: list[asyncio.Task[None]] = []
        self._reminder = Reminder()

    @property
    def batchers(self) -> list[Batcher[Any, Vectors]]:
        return [batcher for batcher, _ in self._probes]

    @property
    def fault(self) -> str | None:
        """What is wrong with inference, in a word (failing, hanging, silent), or None."""
        hang_after = self._settings.deadline
        if any(batcher.failures_in_a_row >= _FAILURES_TO_UNHEALTHY for batcher in self.batchers):
            return "failing"
        if self._share.hung_for > hang_after:
            return "hanging"
        if any(self._quiet_for(batcher) > self._settings.probe_after + 2 * hang_after for batcher in self.batchers):
            return "silent"
        return None

    async def start(self) -> None:
        """Warms the model up, alone and with a full batch, and begins to serve. Raises EngineError."""
        for size in sorted({1, self._settings.max_batch_size}):
            async with self._share.turn():
                await self._share.run(partial(self.model.warm_up, [size]))
        for batcher in self.batchers:
            batcher.last_success = time.monotonic()
            self._tasks.append(asyncio.create_task(_keep_running(batcher)))
        self._tasks.append(asyncio.create_task(self._watch()))

    async def read_image(self, blob: Encoded, caller: Hashable, request: Hashable) -> tuple[Pixels, Timings]:
        """`pixel_values` (3, S, S) of one encoded image, and how long it waited and took.

        Raises ImageError, OutOfMemoryError, ShuttingDownError.
        """
        asked = time.monotonic()
        pixels, started, seconds = await self._workshop.decoding.run(partial(self._read, blob), caller, request)
        self.observer.decoded(seconds)
        return pixels, Timings(decode=seconds, queue=started - asked)

    async def embed_pixels(self, pixels: Pixels, read: Timings, caller: Hashable, request: Hashable) -> Finished:
        """The vector of one image that was `read`. Raises EngineError, ShuttingDownError."""
        done = await self.images.submit(pixels, caller, request)
        return Finished(done.value, Timings(read.decode, read.queue + done.queued, done.computed))

    async def read_texts(
        self, prompts: Sequence[Prompt], caller: Hashable, request: Hashable
    ) -> tuple[list[Tokens], Timings]:
        """The tokens of a few texts, read together since a thread costs more than a text, and how long it took.

        Raises InvalidTextError, TextTowerMissingError, ShuttingDownError.
        """
        asked = time.monotonic()
        if self.texts is None:
            raise TextTowerMissingError(f"{self.name} is served without a text tower: it embeds images only.")
        found = await self._workshop.tokenizing.run(partial(_encode, self.model, prompts), caller, request)
        for tokens, seconds in found:
            self.observer.tokenized(seconds)
            if tokens.unknown_script:
                self.met_unknown_script()
        return [tokens for tokens, _ in found], Timings(queue=time.monotonic() - asked)

    async def embed_tokens(self, tokens: Tokens, read: Timings, caller: Hashable, request: Hashable) -> Finished:
        """The vector of one text that was `read`. Raises EngineError, ShuttingDownError."""
        assert self.texts is not None
        done = await self.texts.submit(tokens, caller, request)
        timings = Timings(queue=read.queue + done.queued, inference=done.computed)
        return Finished(done.value, timings, tokens.truncated, tokens.unknown_script, tokens.count)

    def stop(self) -> None:
        """Whatever waits or is in work fails with ShuttingDownError, and whatever comes later too."""
        for task in self._tasks:
            task.cancel()
        for batcher in self.batchers:
            batcher.stop()

    async def close(self) -> None:
        """Stops, and closes the model once the batch in work, if there is one, has been computed."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()  # they hold the frames they ended in, and these the engine
        await self._share.run(self.model.close)

    def met_unknown_script(self) -> None:
        """Counts a text whose vector means little, and says so in the log once in a while."""
        self.observer.met_unknown_script()
        if texts := self._reminder.count():
            known = in_words(self.model.languages)
            logger.warning(
                "%s knows %s, and texts came without a letter that it reads (%d): their vectors mean little; "
                "docs/models.md names models that know more languages",
                self.name,
                known,
                texts,
            )

    def _read(self, blob: Encoded) -> tuple[Pixels, float, float]:
        started, problem = time.monotonic(), list[ClipsrvError]()
        try:
            pixels = self.model.read_image(blob, self._settings.limits, self._workshop.budget)
            return pixels, started, time.monotonic() - started
        except ImageError as error:
            problem.append(error.let_go())
        except MemoryError:
            problem.append(OutOfMemoryError("Not enough memory to decode this image."))
        raise problem.pop()  # with no frame of the decoder behind it, for these hold the image

    async def _watch(self) -> None:
        """Logs a change of health, and probes a tower that is failing or has been quiet."""
        known: str | None = None
        probe_after = self._settings.probe_after
        while True:
            await asyncio.sleep(min(_LOOK, probe_after))
            if self.fault != known:
                known = self.fault
                logger.log(logging.ERROR if known else logging.WARNING, "inference is %s", known or "working again")
            for batcher, item in self._probes:
                if not batcher.busy_for and (batcher.failures_in_a_row or self._quiet_for(batcher) > probe_after):
                    try:
                        async with asyncio.timeout(self._settings.deadline):
                            await batcher.submit(item, _watch_dog)
                    except (ClipsrvError, TimeoutError):
                        continue

    def _quiet_for(self, batcher: Batcher[Any, Vectors]) -> float:
        return 0.0 if batcher.last_success is None else time.monotonic() - batcher.last_success

    def _batcher(
        self, embed: Callable[[Sequence[Any]], Vectors], limit: int, size: Callable[[Any], int] = lambda item: 1
    ) -> Batcher[Any, Vectors]:
        # Not self: an engine that is put away goes with its model, and not when it is collected.
        name, share, observer = self.name, self._share, self.observer

        async def process(items: Sequence[Any]) -> list[Vectors]:
            began = time.monotonic()
            vectors = list(await share.run(partial(embed, items)))
            observer.embedded(name, len(items), time.monotonic() - began)
            return vectors

        return Batcher(process, limit, self.observer, share.turn, size)


#: The caller that probes are made for: a turn of its own.
_watch_dog = object()


async def _keep_running(batcher: Batcher[Any, Vectors]) -> None:
    """A batcher that dies is started again; native code can raise what no `except Exception` sees."""
    while True:
        try:
            await batcher.run()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # whatever it was, those who wait must still be served
            if _is_cancelled():
                raise
            logger.exception("the batcher died; starting it again")
        await asyncio.sleep(_RESTART)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _encode(model: Model, prompts: Sequence[Prompt]) -> list[tuple[Tokens, float]]:
    """The tokens of each text, and the seconds they took."""
    found = []
    for prompt in prompts:
        started = time.monotonic()
        tokens = model.read_text(prompt.text, own=prompt.label)
        found.append((tokens, time.monotonic() - started))
    return found


def _embed_stack(encoder: Encoder, pixels: Sequence[Pixels]) -> Vectors:
    return encoder.embed(np.stack(pixels))
