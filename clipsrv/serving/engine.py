"""The towers of a running model, each behind its batcher, on one inference thread; watched, so that health is honest.

Healthy means that inference works: after a while without any, one is made to find out. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import ClipsrvError
from clipsrv.models.model import Model
from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.batcher import Batcher
from clipsrv.serving.observer import Observer
from clipsrv.text.clip import Tokens

logger = logging.getLogger(__name__)

Pixels = NDArray[np.float32]
ImageBatcher = Batcher[Pixels, Vectors]
TextBatcher = Batcher[Tokens, Vectors]

#: Inferences of single items failing in a row after which the engine is taken to be broken.
_FAILURES_TO_UNHEALTHY = 3
#: Seconds between two looks at the engine, and before a batcher that died is started again.
_LOOK, _RESTART = 1.0, 0.1


class Engine:
    """Runs `model` until stopped. Times in seconds."""

    def __init__(
        self, model: Model, max_batch_size: int, *, hang_after: float, probe_after: float, observer: Observer
    ) -> None:
        """An inference longer than `hang_after` counts as hung; none for `probe_after` makes one."""
        self.model = model
        self._hang_after, self._probe_after = hang_after, probe_after
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        size = model.manifest.preprocess.crop_size
        self.images: ImageBatcher = Batcher(self._in_thread(model.image_encoder, np.stack), max_batch_size, observer)
        self.texts: TextBatcher | None = None
        # Not zeros, which a model without offsets would turn into a vector of zeros, and that is a failure.
        ramp = np.linspace(-1, 1, 3 * size * size, dtype=np.float32).reshape(3, size, size)
        self._probes: list[tuple[Batcher[Any, Vectors], Any]] = [(self.images, ramp)]
        if model.text_encoder is not None and model.tokenizer is not None:
            self.texts = Batcher(self._in_thread(model.text_encoder, _stack_tokens), max_batch_size, observer)
            self._probes.append((self.texts, model.tokenizer.encode("a photo")))
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def batchers(self) -> list[Batcher[Any, Vectors]]:
        return [batcher for batcher, _ in self._probes]

    @property
    def fault(self) -> str | None:
        """What is wrong with inference, in a word (failing, hanging, silent), or None."""
        if any(batcher.failures_in_a_row >= _FAILURES_TO_UNHEALTHY for batcher in self.batchers):
            return "failing"
        if any(batcher.busy_for > self._hang_after for batcher in self.batchers):
            return "hanging"
        if any(self._quiet_for(batcher) > self._probe_after + 2 * self._hang_after for batcher in self.batchers):
            return "silent"
        return None

    async def start(self, batch_sizes: Sequence[int]) -> None:
        """Warms the model up at these batch sizes and begins to serve. Raises EngineError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.model.warm_up, batch_sizes)
        for batcher in self.batchers:
            batcher.last_success = time.monotonic()
            self._tasks.append(asyncio.create_task(_keep_running(batcher)))
        self._tasks.append(asyncio.create_task(self._watch()))

    async def stop(self) -> None:
        """What waits or is in work fails with ShuttingDownError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        """Logs a change of health, and probes a tower that is failing or has been quiet."""
        known: str | None = None
        while True:
            await asyncio.sleep(min(_LOOK, self._probe_after))
            if self.fault != known:
                known = self.fault
                logger.log(logging.ERROR if known else logging.WARNING, "inference is %s", known or "working again")
            for batcher, item in self._probes:
                if not batcher.busy_for and (batcher.failures_in_a_row or self._quiet_for(batcher) > self._probe_after):
                    try:
                        async with asyncio.timeout(self._hang_after):
                            await batcher.submit(item, _watch_dog)
                    except (ClipsrvError, TimeoutError):
                        continue

    def _quiet_for(self, batcher: Batcher[Any, Vectors]) -> float:
        return 0.0 if batcher.last_success is None else time.monotonic() - batcher.last_success

    def _in_thread(
        self, encoder: Encoder, stack: Callable[[Sequence[Any]], NDArray[Any]]
    ) -> Callable[[Sequence[Any]], Coroutine[Any, Any, list[Vectors]]]:
        def embed(items: Sequence[Any]) -> list[Vectors]:
            return list(encoder.embed(stack(items)))

        async def process(items: Sequence[Any]) -> list[Vectors]:
            return await asyncio.get_running_loop().run_in_executor(self._thread, embed, items)

        return process


#: The caller that probes are made for: a turn of its own.
_watch_dog = object()


async def _keep_running(batcher: Batcher[Any, Vectors]) -> None:
    """A batcher that dies is started again; native code can raise what no `except Exception` sees."""
    task = asyncio.current_task()
    while True:
        try:
            await batcher.run()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # whatever it was, those who wait must still be served
            if task is not None and task.cancelling():
                raise
            logger.exception("the batcher died; starting it again")
        await asyncio.sleep(_RESTART)


def _stack_tokens(tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    longest = max(one.length for one in tokens)
    return np.stack([one.ids[:longest] for one in tokens])
