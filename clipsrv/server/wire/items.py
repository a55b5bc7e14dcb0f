"""Images and texts mixed in one JSON document, as other people's protocols send them, to items in their order.

What the document looks like is the protocol's own; what it may hold is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from aiohttp import hdrs, web

from clipsrv.errors import InvalidTextError
from clipsrv.server.wire.documents import Document, DocumentReader, LongString
from clipsrv.server.wire.envelope import InvalidBase64Error, RemoteUrlError
from clipsrv.server.wire.forms import too_many
from clipsrv.server.wire.inputs import AS_JSON, hold_wide, image_of, text_of, too_many_texts, unaccepted
from clipsrv.server.wire.pieces import Blob
from clipsrv.serving.admission import Lease
from clipsrv.settings import TEXTS_PER_SLOT

#: An image is its encoded bytes, a text a str.
Item = Blob | str
Wishes = TypeVar("Wishes")


class Entry(NamedTuple):
    """A string of the document, whether it is an image's, and where it stands, as its sender would say it."""

    string: str | LongString
    is_image: bool
    where: str


@dataclass(frozen=True)
class Asked(Generic[Wishes]):
    """The items of a request, or what will become of them, and what it asks of the answer."""

    items: Sequence[Item]
    wishes: Wishes


@dataclass(frozen=True)
class ItemLimits:
    """The most images and texts of a request, and the most slots that both may take together."""

    images: int
    texts: int
    slots: int


class ItemReader:
    """Reads requests of any number of images and texts within `limits`."""

    def __init__(self, documents: DocumentReader, limits: ItemLimits) -> None:
        self._documents, self._limits = documents, limits

    async def read(
        self, request: web.Request, lease: Lease, translate: Callable[[Document], tuple[Sequence[Entry], Wishes]]
    ) -> Asked[Wishes]:
        """`translate`, a pure function, knows the protocol. Raises what it raises, InvalidRequestError of the kind that
        fits, InvalidTextError, OverloadedError."""
        if hdrs.CONTENT_TYPE in request.headers and request.content_type != "application/json":
            raise unaccepted(request, AS_JSON)

        def read(document: Document) -> Asked[Wishes]:
            entries, wishes = translate(document)
            check(entries, self._limits)
            return Asked([item_of(entry) for entry in entries], wishes)

        asked = await self._documents.read(request, lease, read)
        hold_wide([item for item in asked.items if isinstance(item, str)], lease)
        return asked


def check(entries: Sequence[Entry], limits: ItemLimits) -> None:
    """Raises TooManyImagesError, TooManyTextsError."""
    images = sum(entry.is_image for entry in entries)
    if images > limits.images:
        raise too_many("images", limits.images)
    texts, most = len(entries) - images, min(limits.texts, TEXTS_PER_SLOT * (limits.slots - images))
    if texts > most:
        raise too_many_texts(texts, most)


def item_of(entry: Entry) -> Item:
    """Raises InvalidBase64Error, RemoteUrlError and InvalidTextError, which say where; InvalidJsonError."""
    try:
        return image_of(entry.string) if entry.is_image else text_of(entry.string)
    except (InvalidBase64Error, RemoteUrlError, InvalidTextError) as error:
        message = f"{entry.where}: {error.message}"
        raise type(error)(message, param=entry.where, **error.details) from None
