"""One request's time with one engine: an image or a text at a time, or all of them together.

The operations on one item are the primitive: a batch gathers them, and whoever streams takes them one by one. Whoever
asks holds the slots. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TypeVar

from clipsrv.errors import BadImage, BadImagesError, ImageError
from clipsrv.images.region import Encoded
from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.engine import Engine
from clipsrv.serving.outcome import Finished, Outcome, Timings
from clipsrv.serving.prompts import Prompt
from clipsrv.serving.shelf import Loan
from clipsrv.settings import TEXTS_PER_SLOT

Item = TypeVar("Item")
Result = TypeVar("Result")


class Visit:
    """A context manager, which ends it. Callers take turns wherever something waits, and so do visits of a caller."""

    def __init__(self, loan: Loan[Engine], caller: Hashable) -> None:
        self.name, self.model = loan.thing.name, loan.thing.model
        self._engine = loan.thing
        self._loan: Loan[Engine] | None = loan
        self._caller, self._request = caller, object()

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loan:
            self._loan.give_back()

    def pass_on(self) -> Visit:
        """This visit under another owner: what ended it before ends nothing now."""
        other = copy(self)
        self._loan = None
        return other

    async def embed_image(self, blob: Encoded) -> Finished:
        """The vector of one encoded image. Raises ImageError, EngineError or ShuttingDownError."""
        pixels, read = await self._engine.read_image(blob, self._caller, self._request)
        return await self._engine.embed_pixels(pixels, read, self._caller, self._request)

    async def embed_text(self, text: str) -> Finished:
        """The vector of one text. Raises InvalidTextError, TextTowerMissingError, EngineError, ShuttingDownError."""
        return (await self._embed_few([text]))[0]

    async def embed_images(self, blobs: Sequence[Encoded], *, null_on_error: bool = False) -> Outcome:
        """All of `blobs` at once. Raises BadImagesError naming every image that cannot be used (unless
        `null_on_error`, which leaves None in its place), else as `embed_image`."""
        bad: list[BadImage] = []

        async def embed(index: int) -> Finished | None:
            try:
                pixels, read = await self._engine.read_image(blobs[index], self._caller, self._request)
            except ImageError as error:
                bad.append(BadImage(index, error.let_go()))
                return None
            if bad and not null_on_error:  # the request has failed, and only the other bad ones matter
                return None
            return await self._engine.embed_pixels(pixels, read, self._caller, self._request)

        finished = await _together(embed, range(len(blobs)))
        bad.sort(key=lambda one: one.index)
        if bad and not null_on_error:
            raise BadImagesError(bad)
        return self._outcome(finished, bad)

    async def embed_texts(self, texts: Sequence[str]) -> Outcome:
        """All of `texts` at once. Raises as `embed_text`."""
        return self._outcome(await self._embed_all(texts), ())

    async def embed_beside(self, blob: Encoded, prompts: Sequence[Prompt]) -> tuple[Outcome, Outcome]:
        """One image, and texts that are remembered for the next image. Raises BadImagesError, and as `embed_text`."""
        works = [partial(self.embed_prompts, prompts), partial(self.embed_images, [blob])]
        texts, image = await _together(lambda work: work(), works)
        return image, texts

    async def embed_prompts(self, prompts: Sequence[Prompt]) -> Outcome:
        """As `embed_texts`, of each prompt once for as long as the engine remembers it; `unknown_script` are those
        whose labels are of one."""
        kept = self._engine.prompts
        known = {prompt: found for prompt in prompts if (found := kept.get(prompt))}
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        computed = dict(zip(new, await self._embed_all(new), strict=True))
        for prompt, finished in computed.items():
            kept.keep(prompt, finished)
        return self._outcome([known.get(prompt) or computed[prompt] for prompt in prompts], ())

    async def _embed_all(self, texts: Sequence[str] | Sequence[Prompt]) -> list[Finished]:
        few = [texts[at : at + TEXTS_PER_SLOT] for at in range(0, len(texts), TEXTS_PER_SLOT)]
        return [one for some in await _together(self._embed_few, few) for one in some]

    async def embed_items(self, items: Sequence[Encoded | str]) -> Outcome:
        """All of `items` at once, encoded images and texts in any order. Raises BadImagesError with their places among
        them, else as `embed_image` and `embed_text`."""
        images = {place: item for place, item in enumerate(items) if not isinstance(item, str)}
        texts = {place: item for place, item in enumerate(items) if isinstance(item, str)}
        bad: list[BadImage] = []
        try:
            works = (partial(self.embed_texts, [*texts.values()]), partial(self.embed_images, [*images.values()]))
            read, seen = await _together(lambda work: work(), works)
        except BadImagesError as error:
            places = [*images]
            bad += [BadImage(places[one.index], one.error) for one in error.bad]
        if bad:  # raised here, with no frame behind it that holds the items
            raise BadImagesError(bad)
        vectors = dict(zip((*texts, *images), (*read.vectors, *seen.vectors), strict=True))
        read.timings.add(seen.timings)
        places = [*texts]
        return replace(
            read,
            vectors=[vectors[place] for place in range(len(items))],
            truncated=tuple(places[index] for index in read.truncated),
            unknown_script=tuple(places[index] for index in read.unknown_script),
        )

    async def _embed_few(self, texts: Sequence[str] | Sequence[Prompt]) -> Sequence[Finished]:
        tokens, read = await self._engine.read_texts(texts, self._caller, self._request)
        embed = partial(self._engine.embed_tokens, read=read, caller=self._caller, request=self._request)
        return [await embed(tokens[0])] if len(tokens) == 1 else await _together(embed, tokens)

    def _outcome(self, finished: Sequence[Finished | None], bad: Sequence[BadImage]) -> Outcome:
        timings = Timings()
        vectors: list[Vectors | None] = []
        for one in finished:
            vectors.append(one.vector if one else None)
            if one:
                timings.add(one.timings)
        truncated = tuple(index for index, one in enumerate(finished) if one and one.truncated)
        unknown_script = tuple(index for index, one in enumerate(finished) if one and one.unknown_script)
        tokens = sum(one.tokens for one in finished if one)
        return Outcome(self.name, self.model, vectors, timings, tuple(bad), truncated, unknown_script, tokens)


async def _together(do: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> Sequence[Result]:
    """What `do` gives for each item, begun in their order. The first that fails ends the others and is raised.

    Not a TaskGroup: its group of errors holds the frames they came through, and these hold the group.
    """
    if not items:
        return []
    results: dict[int, Result] = {}
    first_error: list[Exception] = []
    over = asyncio.get_running_loop().create_future()

    async def one(index: int, item: Item) -> None:
        try:
            results[index] = await do(item)
        except Exception as error:  # noqa: BLE001 - raised below
            if not first_error:
                first_error.append(error)
        if (first_error or len(results) == len(items)) and not over.done():
            over.set_result(None)

    tasks = [asyncio.create_task(one(index, item)) for index, item in enumerate(items)]
    try:
        await over
    finally:
        if unfinished := [task for task in tasks if task.cancel()]:
            await asyncio.wait(unfinished)
    if first_error:
        raise first_error.pop()
    return [results[index] for index in range(len(items))]
