"""The images of a long request, out of a form or JSON, one by one as they arrive: held until their room is given back.

What is wrong with one image comes in its place; what is wrong with the request ends it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from aiohttp import hdrs, web

from clipsrv.errors import ClipsrvError, ImageTooLargeError
from clipsrv.images.region import Encoded
from clipsrv.server.wire.bodies import BodyReader, Pace
from clipsrv.server.wire.documents import DocumentReader
from clipsrv.server.wire.elements import AROUND, Elements
from clipsrv.server.wire.envelope import InvalidJsonError, InvalidRequestError
from clipsrv.server.wire.forms import stream_form
from clipsrv.server.wire.inputs import AS_JSON, images_of, unaccepted
from clipsrv.server.wire.pieces import Pieces
from clipsrv.serving.admission import Admission, Lease

_FIELD = "images"
#: JSON may take twice the bytes of an image: base64 takes a third more, and some writers escape its slashes.
_JSON = 2


class StreamLimits(NamedTuple):
    """The most images of a stream, bytes of one of them, and bytes of those that are there at once."""

    images: int
    image_bytes: int
    held_bytes: int


@dataclass
class Arrived:
    """One image, or what is wrong with it; a context manager, which gives the room of its bytes back."""

    image: Encoded | ClipsrvError
    leases: Sequence[Lease]

    def __enter__(self) -> Encoded | ClipsrvError:
        return self.image

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        for lease in self.leases:
            lease.release()


class StreamedInputs:
    """Reads such requests within `limits`."""

    def __init__(self, bodies: BodyReader, documents: DocumentReader, limits: StreamLimits) -> None:
        self._bodies, self._documents, self._limits = bodies, documents, limits

    def open(self, request: web.Request, lease: Lease) -> StreamedImages:
        """`lease` holds what is there of an image that is arriving. Raises UnsupportedMediaTypeError,
        UnsupportedContentEncodingError."""
        self._bodies.check_encoding(request)
        if request.content_type not in ("multipart/form-data", "application/json"):
            raise unaccepted(request, f"multipart/form-data with {_FIELD!r} or {AS_JSON}")
        return StreamedImages(request, lease, self._bodies, self._documents, self._limits)


class StreamedImages:
    """Those of one request, to be read once. `model` is what its JSON names so far."""

    def __init__(
        self,
        request: web.Request,
        lease: Lease,
        bodies: BodyReader,
        documents: DocumentReader,
        limits: StreamLimits,
    ) -> None:
        self.model: str | None = None
        self._request, self._lease, self._limits, self._documents = request, lease, limits, documents
        self._pace = Pace()
        self._chunks = bodies.endless(request, lease, self._pace)
        self._room = Admission(limits.held_bytes, "bytes of a stream")

    def read(self) -> AsyncGenerator[Arrived]:
        """Raises InvalidRequestError of the kind that fits, OverloadedError if the server has no room for long,
        ShuttingDownError, MemoryError."""
        return self._of_json() if self._request.content_type == "application/json" else self._of_form()

    async def _of_form(self) -> AsyncGenerator[Arrived]:
        kind, limits = self._request.headers[hdrs.CONTENT_TYPE], self._limits
        async with aclosing(stream_form(kind, self._chunks, _FIELD, limits.images, limits.image_bytes)) as pieces:
            async for whole, begun in pieces:
                self._settle(begun + sum(map(len, whole)))
                while whole:
                    self._pace.begin()
                    own = self._lease.split(len(whole[0]))
                    too_large = len(whole[0]) > limits.image_bytes
                    yield await self._arrived(self._too_large() if too_large else whole[0], own)
                    del whole[0]

    async def _of_json(self) -> AsyncGenerator[Arrived]:
        elements = Elements(self._chunks, self._limits.images, _JSON * self._limits.image_bytes, self._settle)
        async with aclosing(elements.read()) as found:
            async for element in found:
                self._pace.begin()
                self.model = elements.model
                image = await self._image_of(element)
                yield await self._arrived(image, self._lease.split(len(element) - AROUND))
                del image
        self.model = elements.model

    async def _image_of(self, element: Pieces) -> Encoded | ClipsrvError:
        if len(element) > _JSON * self._limits.image_bytes + AROUND:
            return self._too_large()
        problem: list[InvalidRequestError] = []
        try:
            caller = self._lease.holder
            asked = await self._documents.translated(element.whole(), lambda found: images_of(found, _FIELD, 1), caller)
            return asked.items[0]
        except InvalidJsonError:
            raise
        except InvalidRequestError as error:
            problem.append(error.let_go())
        return problem.pop()

    def _too_large(self) -> ImageTooLargeError:
        most = self._limits.image_bytes
        return ImageTooLargeError(f"The image has more than {most:,} bytes, which are accepted at most.", limit=most)

    async def _arrived(self, image: Encoded | ClipsrvError, own: Lease) -> Arrived:
        """`image`, once there is room for it among those of this request that are not done."""
        try:
            room = await self._room.wait(min(own.count, self._room.capacity))
        except BaseException:
            own.release()
            raise
        return Arrived(image, (room, own))

    def _settle(self, held: int) -> None:
        self._lease.shrink(max(0, self._lease.count - held))
