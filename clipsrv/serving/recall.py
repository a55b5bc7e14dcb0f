"""Where items become vectors: out of the cache, with whoever is computing the same, or computed. Every protocol's way.

Without a cache everything is computed, the same twice too. Knows nothing of slots and deadlines.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from clipsrv.images.region import Cropped, Encoded
from clipsrv.models.texts import batching_order
from clipsrv.serving.engine import Engine, Pixels
from clipsrv.serving.flights import Flights
from clipsrv.serving.keys import image_key, text_key
from clipsrv.serving.observer import HIT, MISS, SHARED
from clipsrv.serving.outcome import Finished, Timings
from clipsrv.serving.prompts import Prompt
from clipsrv.serving.together import together
from clipsrv.settings import TEXTS_PER_SLOT
from clipsrv.text.tokens import Tokens

Result = TypeVar("Result")

#: Bytes that are hashed on the event loop: tens of microseconds, about what a thread costs.
_ON_THE_LOOP = 16_384


class Recall:
    """The items of one request to one engine. Whoever waits for what is under way already waits in the turn of that
    caller's first request for it, and never in another caller's."""

    def __init__(self, engine: Engine, caller: Hashable, request: Hashable) -> None:
        self._engine, self._cache, self._observer = engine, engine.cache, engine.observer
        self._caller, self._request = caller, request

    async def image(self, image: Encoded, is_wanted: Callable[[], bool] = lambda: True) -> Finished | None:
        """The vector of an encoded image; None if it is not wanted any more once it has been read. Raises ImageError,
        EngineError, ShuttingDownError."""
        engine, caller = self._engine, self._caller
        began, looked, key, under_way = time.monotonic(), Timings(), None, None
        if self._cache is not None:
            size = len(image.blob if isinstance(image, Cropped) else image)
            key = await self._hashed(partial(image_key, engine.space, image), size)
            if (known := self._cache.get(key)) is not None:
                return self._recalled(known, time.monotonic() - began)
            self._tell_missed(key)
            looked = Timings(cache=time.monotonic() - began, misses=1)
            under_way = engine.vectors.join(key, caller)
        if under_way is None:
            read = partial(engine.read_image, image, caller, self._request)
            pixels, timings = await self._once(engine.reads, key, read)
            if not is_wanted():
                return None
            under_way = self._once(engine.vectors, key, partial(self._embed_pixels, key, pixels, timings))
        return _after(looked, await under_way)

    async def texts(self, prompts: Sequence[Prompt]) -> Sequence[Finished]:
        """The vectors of texts, in their order. Raises InvalidTextError, TextTowerMissingError, EngineError,
        ShuttingDownError."""
        if self._cache is None:
            return await self._compute_texts([None] * len(prompts), prompts)
        began = time.monotonic()
        hashes = partial(_text_keys, self._engine.space, prompts)
        keys = await self._hashed(hashes, sum(len(prompt.text) for prompt in prompts))
        known = {key: found for key in keys if (found := self._cache.get(key)) is not None}
        took = time.monotonic() - began
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        computed = dict(zip(new, await self._compute_texts([*new], [*new.values()]), strict=True)) if new else {}
        return [
            self._recalled(known[key], took) if key in known else _after(Timings(cache=took, misses=1), computed[key])
            for key in keys
        ]

    async def _compute_texts(self, keys: Sequence[bytes | None], prompts: Sequence[Prompt]) -> Sequence[Finished]:
        found = await self._read_texts(prompts)

        async def embed(place: int) -> Finished:
            key = keys[place]
            if key is not None and self._cache is not None:
                if (known := self._cache.get(key)) is not None:  # somebody else's, since it was looked for
                    self._observer.looked_up(SHARED)
                    return known
                self._tell_missed(key)
            return await self._once(self._engine.vectors, key, partial(self._embed_tokens, key, *found[place]))

        if len(found) == 1:
            return [await embed(0)]
        # Those that are alike stand together in the queue, and so in batches.
        order = batching_order(self._engine.model, [tokens for tokens, _ in found])
        done = dict(zip(order, await together(embed, order), strict=True))
        return [done[place] for place in range(len(order))]

    async def _read_texts(self, prompts: Sequence[Prompt]) -> Sequence[tuple[Tokens, Timings]]:
        """The tokens of each text, and how long they took; a few at a time, between which others have their turn."""

        async def read(few: Sequence[Prompt]) -> list[tuple[Tokens, Timings]]:
            tokens, timings = await self._engine.read_texts(few, self._caller, self._request)
            return [(one, timings) for one in tokens]

        if len(prompts) <= TEXTS_PER_SLOT:
            return await read(prompts)
        parts = [prompts[at : at + TEXTS_PER_SLOT] for at in range(0, len(prompts), TEXTS_PER_SLOT)]
        return [one for part in await together(read, parts) for one in part]

    async def _embed_pixels(self, key: bytes | None, pixels: Pixels, read: Timings) -> Finished:
        return self._kept(key, await self._engine.embed_pixels(pixels, read, self._caller, self._request))

    async def _embed_tokens(self, key: bytes | None, tokens: Tokens, read: Timings) -> Finished:
        return self._kept(key, await self._engine.embed_tokens(tokens, read, self._caller, self._request))

    async def _once(self, flights: Flights[Result], key: bytes | None, work: Callable[[], Awaitable[Result]]) -> Result:
        return await (work() if key is None else flights.run(key, self._caller, work))

    async def _hashed(self, work: Callable[[], Result], size: int) -> Result:
        """What `work` makes of so many bytes: not on the event loop if they are many, nor where images are decoded."""
        if size <= _ON_THE_LOOP:
            return work()
        return await self._engine.hashing.run(work, self._caller, self._request)

    def _recalled(self, known: Finished, took: float) -> Finished:
        """As if it had waited for nothing; what is told of a text is told each time."""
        self._observer.looked_up(HIT)
        if known.unknown_script:
            self._engine.met_unknown_script()
        return replace(known, timings=Timings(cache=took, hits=1))

    def _tell_missed(self, key: bytes) -> None:
        flights = (self._engine.reads, self._engine.vectors)
        self._observer.looked_up(SHARED if any(one.has(key, self._caller) for one in flights) else MISS)

    def _kept(self, key: bytes | None, finished: Finished) -> Finished:
        if key is not None and self._cache is not None:
            self._observer.evicted(self._cache.keep(key, finished))
        return finished


def _text_keys(space: bytes, prompts: Sequence[Prompt]) -> list[bytes]:
    return [text_key(space, prompt) for prompt in prompts]


def _after(looked: Timings, finished: Finished) -> Finished:
    """What came of an item that had to be looked for first."""
    timings = replace(finished.timings)
    timings.add(looked)
    return replace(finished, timings=timings)
