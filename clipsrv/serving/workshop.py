"""What the process has once, however many models it serves: slots, threads, the pixels that may be decoded at once.

Engines borrow it; it knows none of them. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import reuse_memory
from clipsrv.models.model import Model
from clipsrv.serving.admission import Admission
from clipsrv.serving.cache import VectorCache
from clipsrv.serving.inference import InferenceThread
from clipsrv.serving.pool import FairPool
from clipsrv.settings import ServingSettings

Result = TypeVar("Result")


class Workshop:
    """Made before the first model, stopped after the last."""

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self.slots = Admission(settings.max_queue, "image slots", per_holder=settings.max_queue_per_caller)
        self.budget = PixelBudget(settings.max_pixels_in_flight)
        self.decoding = FairPool(settings.decode_threads, "decode")
        # A thread of its own: a text must not wait for the photos of others to be decoded.
        self.tokenizing = FairPool(1, "tokenize")
        # Nor a vector that is known, of a large image or text: whether it is needs a hash of all its bytes.
        self.hashing = FairPool(1, "hash")
        self.cache = VectorCache(settings.cache_bytes) if settings.cache_bytes else None
        # One large document at a time, since each takes many times its bytes while it is parsed.
        self.parsing = FairPool(1, "parse")
        self.inference = InferenceThread()
        # Not the loop's own threads: their end is waited for when the loop ends.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        reuse_memory(settings.decode_threads)

    async def open(self, load: Callable[[], Model]) -> Model:
        """What `load` gives, in a thread. If this is cancelled the model is closed as soon as it is there."""
        loading = self._loader.submit(load)
        try:
            return await asyncio.wrap_future(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_close)
            raise
        finally:
            del loading  # an error holds the frames it came through: they must not hold it in turn

    async def aside(self, work: Callable[[], Result]) -> Result:
        """What `work`, a look at files, gives, in the thread that models are opened in."""
        return await asyncio.wrap_future(self._loader.submit(work))

    def give_up(self) -> None:
        """Whatever waits for a thread or is being done fails with ShuttingDownError; the threads are not waited for."""
        for pool in (self.decoding, self.tokenizing, self.hashing, self.parsing):
            pool.stop()

    def stop(self) -> None:
        """Ends the threads, each when what it does is done; nothing is asked of them any more."""
        self.give_up()
        self.inference.stop()
        self._loader.shutdown(wait=False, cancel_futures=True)


def _close(loading: Future[Model]) -> None:
    with suppress(Exception):  # there may be none: nobody waits for what went wrong
        loading.result().close()
