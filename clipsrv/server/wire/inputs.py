"""What requests bring, as values every protocol translates into: an image is its encoded bytes, a text a str."""

from __future__ import annotations

import binascii
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from aiohttp import hdrs, web

from clipsrv.errors import InvalidTextError
from clipsrv.images.region import Encoded
from clipsrv.server.wire.bodies import BodyReader
from clipsrv.server.wire.crops import CROP, crop_of, cropped
from clipsrv.server.wire.documents import Document, DocumentReader, LongString
from clipsrv.server.wire.envelope import (
    EmptyBatchError,
    InvalidBase64Error,
    InvalidFieldError,
    MissingImageError,
    RemoteUrlError,
    TooManyTextsError,
    UnexpectedFieldError,
    UnsupportedMediaTypeError,
)
from clipsrv.server.wire.forms import names, read_form, too_many
from clipsrv.server.wire.pieces import Blob, Pieces, blob_of
from clipsrv.serving.admission import Lease

_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)
#: Characters of a data URI in which it says what it is.
_LONGEST_KIND = 512
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,31}://", re.ASCII | re.IGNORECASE)
#: Characters of a text: to look through more for the few words that a model reads would take long of everyone.
LONGEST_TEXT = 1_000_000
#: Bytes that JSON may take for a character.
LONGEST_ESCAPE = 6
_MANY = "images"
#: What to send where JSON is read, with what is most often forgotten.
AS_JSON = 'JSON with -H "Content-Type: application/json"'
_URL_SAFE = str.maketrans("-_", "+/")


Item = TypeVar("Item")


class Asked(NamedTuple, Generic[Item]):
    """What a request brings, in the order sent; the `model` it names, if it does; and whether it asked for `many`."""

    items: list[Item]
    model: str | None
    many: bool


class Inputs:
    """Reads requests in the guide's forms; of one at most `max_images` images or `max_texts` texts."""

    def __init__(self, bodies: BodyReader, documents: DocumentReader, *, max_images: int, max_texts: int) -> None:
        self._bodies, self._documents = bodies, documents
        self._max_images, self._max_texts = max_images, max_texts

    async def images(self, request: web.Request, lease: Lease, *, many: bool) -> Asked[Encoded]:
        """The encoded images of a request; exactly one unless `many`. JSON may name a model, and parts of images.

        Raises InvalidRequestError of the kind that fits, OverloadedError if an unannounced body finds no room.
        """
        limit = self._max_images if many else 1
        field = _MANY if many else "image"
        kind = request.content_type
        if kind == "multipart/form-data":
            chunks = self._bodies.chunks(request, lease)
            return Asked([*await read_form(request.headers[hdrs.CONTENT_TYPE], chunks, field, limit)], None, many)
        if kind == "application/json":
            return await self._documents.read(request, lease, lambda document: images_of(document, field, limit))
        if not many and hdrs.CONTENT_TYPE in request.headers and _is_image(kind):
            return Asked([blob_of(await self._bodies.read(request, lease))], None, many)
        forms = f"multipart/form-data with {field!r}{'' if many else ', the image itself,'} or {AS_JSON}"
        raise unaccepted(request, forms, await self._hint(request, lease))

    async def texts(self, request: web.Request, lease: Lease) -> Asked[str]:
        """The texts of {"text": str} or {"texts": [str]}, which may name a model. Raises as `images`."""
        if request.content_type != "application/json":
            raise unaccepted(request, AS_JSON)
        asked = await self._documents.read(request, lease, lambda document: texts_of(document, self._max_texts))
        hold_wide(asked.items, lease)
        return asked

    async def either(self, request: web.Request, lease: Lease) -> Asked[Encoded | str]:
        """The one image of a request, in any of its forms, or the text of {"text": str}. Raises as `images`."""
        if request.content_type == "application/json":
            asked = await self._documents.read(request, lease, either_of)
            hold_wide([item for item in asked.items if isinstance(item, str)], lease)
            return asked
        image = await self.images(request, lease, many=False)
        return Asked([*image.items], image.model, many=False)

    async def _hint(self, request: web.Request, lease: Lease) -> str:
        if not request.content_type.startswith("text/plain") or (request.content_length or 99) > 64:
            return ""
        if (await self._bodies.read(request, lease))[:].strip() == b"[object FormData]":
            return " The form was sent as a string: use the FormData of the platform, not of the 'form-data' package."
        return ""


def unaccepted(request: web.Request, forms: str, hint: str = "") -> UnsupportedMediaTypeError:
    """What to say of a Content-Type that is not read, where `forms` are."""
    shown = names([request.content_type]) if hdrs.CONTENT_TYPE in request.headers else "(none)"
    return UnsupportedMediaTypeError(f"Content-Type {shown} is not accepted here: send {forms}.{hint}")


def images_of(document: Document, field: str, limit: int) -> Asked[Encoded]:
    """The images of {"image": base64, "crop": [x, y, width, height]} or {"images": [base64 or such an object]}, and the
    model that may stand beside them. Raises InvalidRequestError of the kind that fits."""
    model = model_of(document)
    if field not in document:
        raise MissingImageError(f"Expected the field {field!r}; received {names(document)}.")
    many = field == _MANY
    if set(document) - {field, *(() if many else (CROP,))}:
        known = f"{field!r}, and 'model'{'' if many else ' and ' + repr(CROP)} at most"
        raise UnexpectedFieldError(f"Expected the field {known}; received {names(document)}.")
    values = document[field] if many else [document]
    if not isinstance(values, list):
        raise InvalidFieldError(f"{field!r} must be a list: of base64 strings, or of objects with 'image' and 'crop'.")
    if len(values) > limit:
        raise too_many(field, limit)
    if not values:
        raise EmptyBatchError(f"The request has no image; send at least one as {field!r}.")
    return Asked([_encoded(value) for value in values], model, many)


def either_of(document: Document) -> Asked[Encoded | str]:
    """As Inputs.either."""
    if ("image" in document) == ("text" in document):
        raise UnexpectedFieldError(f"Send exactly one of 'image' and 'text'; received {names(document)}.")
    asked = texts_of(document, 1) if "text" in document else images_of(document, "image", 1)
    return Asked([*asked.items], asked.model, many=False)


def _encoded(value: Any) -> Encoded:
    """One image of a document: a string, or an object that may ask for a part of it."""
    if is_string(value):
        return image_of(value)
    if not isinstance(value, dict) or "image" not in value:
        raise InvalidFieldError("An image must be a base64 string, or an object with 'image' and 'crop'.")
    if set(value) - {"image", CROP}:
        raise UnexpectedFieldError(f"An image has the fields 'image' and 'crop'; received {names(value)}.")
    if not is_string(value["image"]):
        raise InvalidFieldError("'image' must be a base64 string.")
    return cropped(image_of(value["image"]), crop_of(value.get(CROP)))


def texts_of(document: Document, limit: int) -> Asked[str]:
    """As Inputs.texts."""
    model = model_of(document)
    if set(document) not in ({"text"}, {"texts"}):
        raise UnexpectedFieldError(f"Send exactly one of 'text' and 'texts'; received {names(document)}.")
    many = "texts" in document
    texts = document["texts"] if many else [document["text"]]
    if not isinstance(texts, list) or not all(map(is_string, texts)):
        raise InvalidFieldError("'text' must be a string, 'texts' a list of strings.")
    if len(texts) > limit:
        raise too_many_texts(len(texts), limit)
    if not texts:
        raise EmptyBatchError("'texts' is empty; send at least one.")
    return Asked([text_of(text) for text in texts], model, many)


def model_of(document: Document) -> str | None:
    """Takes the model's name out of it, if it has one. Raises InvalidFieldError."""
    if "model" not in document:
        return None
    name = document.pop("model")
    if not is_string(name):
        raise InvalidFieldError("'model' must be a string.")
    return text_of(name)


def too_many_texts(count: int, limit: int) -> TooManyTextsError:
    message = f"The request has {count:,} texts; at most {limit:,} are accepted (--max-texts, --max-queue)."
    return TooManyTextsError(message, limit=limit)


def hold_wide(texts: Iterable[str], lease: Lease) -> None:
    """Holds what texts take in memory that is more than their body did. Raises OverloadedError."""
    wide = sum(sys.getsizeof(text) for text in texts if not text.isascii())  # up to four bytes a character
    lease.extend(max(0, wide - lease.count))


def is_string(value: object) -> bool:
    """Whether a value of a document is a string, of which `text_of` or `image_of` makes what it is for."""
    return isinstance(value, str | LongString)


def is_data_uri(string: str | LongString) -> bool:
    """Whether it is the data URI of an image, or of anything in base64: nobody means it to be read as a text."""
    head = string[:_LONGEST_KIND] if isinstance(string, str) else string.head()
    return head[:11].lower() == "data:image/" or bool(_DATA_URI.match(head))


def text_of(string: str | LongString) -> str:
    """Raises InvalidTextError if it is longer than LONGEST_TEXT, InvalidJsonError."""
    if len(string) <= LONGEST_ESCAPE * LONGEST_TEXT:
        text = string if isinstance(string, str) else string.text()
        if len(text) <= LONGEST_TEXT:
            return text
    message = f"A text has more than {LONGEST_TEXT:,} characters; the model reads far less."
    raise InvalidTextError(message, limit=LONGEST_TEXT)


def image_of(string: str | LongString) -> Blob:
    """The bytes of base64 (standard or URL-safe, padded or not) or of a base64 data URI.

    Raises InvalidBase64Error, or RemoteUrlError for the address of an image instead of its bytes; InvalidJsonError.
    """
    pieces, image = iter((string,) if isinstance(string, str) else string.pieces()), Pieces()
    held = next(pieces, "")
    if _URL.match(held):
        raise RemoteUrlError("A URL stands where an image belongs: the server fetches nothing; send the bytes.")
    if match := _DATA_URI.match(held):
        held = held[match.end() :]
    with suppress(ValueError):  # and binascii.Error, which is one
        for piece in pieces:
            ready = max(0, len(held) - 1) // 4 * 4  # the last ones may be the end, with its padding or without
            if "=" in held[:ready]:
                break
            image.add(_decoded(held[:ready]))
            held = held[ready:] + piece
        else:
            image.add(_decoded(held + "=" * (-len(held) % 4)))
            return image.blob()
    raise InvalidBase64Error("An image is not valid base64 (standard or URL-safe) or a base64 data URI.")


def _decoded(base64: str) -> bytes:
    return binascii.a2b_base64(base64.translate(_URL_SAFE), strict_mode=True)


def _is_image(kind: str) -> bool:
    return kind.startswith("image/") or kind == "application/octet-stream"
