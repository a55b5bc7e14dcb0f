"""One request's time with one engine: an image or a text at a time, or all of them together.

The operations on one item are the primitive: a batch gathers them, and whoever streams takes them one by one. Whoever
asks holds the slots. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from types import TracebackType

from clipsrv.errors import BadImage, BadImagesError, ImageError
from clipsrv.images.region import Encoded
from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.engine import Engine
from clipsrv.serving.outcome import Finished, Outcome, Timings
from clipsrv.serving.prompts import Prompt
from clipsrv.serving.recall import Recall
from clipsrv.serving.shelf import Loan
from clipsrv.serving.together import together

#: Texts of one list that are sorted among each other; while these are computed the next ones are read.
_SORTED = 256


class Visit:
    """A context manager, which ends it. Callers take turns wherever something waits, and so do visits of a caller."""

    def __init__(self, loan: Loan[Engine], caller: Hashable) -> None:
        self.name, self.model = loan.thing.name, loan.thing.model
        self._loan: Loan[Engine] | None = loan
        self._recall = Recall(loan.thing, caller, object())

    def __enter__(self) -> Visit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loan:
            self._loan.give_back()

    @property
    def is_wanted_back(self) -> bool:
        """The engine is to be put away once all visits have ended."""
        return self._loan is not None and self._loan.is_wanted_back

    def pass_on(self) -> Visit:
        """This visit under another owner: what ended it before ends nothing now."""
        other = copy(self)
        self._loan = None
        return other

    async def embed_image(self, blob: Encoded) -> Finished:
        """The vector of one encoded image. Raises ImageError, EngineError or ShuttingDownError."""
        finished = await self._recall.image(blob)
        assert finished is not None
        return finished

    async def embed_text(self, text: str) -> Finished:
        """The vector of one text. Raises InvalidTextError, TextTowerMissingError, EngineError, ShuttingDownError."""
        return (await self._recall.texts([Prompt(text, text)]))[0]

    async def embed_images(self, blobs: Sequence[Encoded], *, null_on_error: bool = False) -> Outcome:
        """All of `blobs` at once. Raises BadImagesError naming every image that cannot be used (unless
        `null_on_error`, which leaves None in its place), else as `embed_image`."""
        bad: list[BadImage] = []

        async def embed(index: int) -> Finished | None:
            try:
                # Once the request has failed only the other bad ones matter.
                return await self._recall.image(blobs[index], lambda: null_on_error or not bad)
            except ImageError as error:
                bad.append(BadImage(index, error.let_go()))
                return None

        finished = await together(embed, range(len(blobs)))
        bad.sort(key=lambda one: one.index)
        if bad and not null_on_error:
            raise BadImagesError(bad)
        return self._outcome(finished, bad)

    async def embed_texts(self, texts: Sequence[str]) -> Outcome:
        """All of `texts` at once. Raises as `embed_text`."""
        return await self.embed_prompts([Prompt(text, text) for text in texts])

    async def embed_beside(self, blob: Encoded, prompts: Sequence[Prompt]) -> tuple[Outcome, Outcome]:
        """One image, and the texts it is compared with. Raises BadImagesError, and as `embed_text`."""
        works = [partial(self.embed_prompts, prompts), partial(self.embed_images, [blob])]
        texts, image = await together(lambda work: work(), works)
        return image, texts

    async def embed_prompts(self, prompts: Sequence[Prompt]) -> Outcome:
        """As `embed_texts`; `unknown_script` are those whose labels are of one."""
        some = [prompts[at : at + _SORTED] for at in range(0, len(prompts), _SORTED)]
        finished = [one for part in await together(self._recall.texts, some) for one in part]
        return self._outcome(finished, ())

    async def embed_items(self, items: Sequence[Encoded | str]) -> Outcome:
        """All of `items` at once, encoded images and texts in any order. Raises BadImagesError with their places among
        them, else as `embed_image` and `embed_text`."""
        images = {place: item for place, item in enumerate(items) if not isinstance(item, str)}
        texts = {place: item for place, item in enumerate(items) if isinstance(item, str)}
        bad: list[BadImage] = []
        try:
            works = (partial(self.embed_texts, [*texts.values()]), partial(self.embed_images, [*images.values()]))
            read, seen = await together(lambda work: work(), works)
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
