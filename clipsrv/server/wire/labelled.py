"""An image and the labels it may have, out of a form or a JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aiohttp import hdrs, web

from clipsrv.errors import InvalidLabelsError
from clipsrv.models.scoring import LONGEST_LABEL, TEMPLATE, Labels
from clipsrv.server.wire.bodies import BodyReader
from clipsrv.server.wire.documents import Document, DocumentReader, LongString
from clipsrv.server.wire.envelope import (
    DuplicateFieldError,
    InvalidFieldError,
    InvalidRequestError,
    MissingImageError,
    TooManyTextsError,
    UnexpectedFieldError,
)
from clipsrv.server.wire.forms import names, read_fields
from clipsrv.server.wire.inputs import AS_JSON, LONGEST_ESCAPE, image_of, is_string, model_of, text_of, unaccepted
from clipsrv.server.wire.pieces import Blob
from clipsrv.serving.admission import Lease

IMAGE, LABELS, ONE_TEMPLATE = "image", "labels", "template"
#: Bytes of a character in UTF-8, at most.
_WIDEST = 4
_TOO_LONG = f"A label or the template has more than {LONGEST_LABEL:,} characters."


class Labelled(NamedTuple):
    """The encoded image, its labels, and the model that is named, if one is."""

    image: Blob
    labels: Labels
    model: str | None = None


class LabelledInputs:
    """Reads requests of one image and at most `max_labels` labels."""

    def __init__(self, bodies: BodyReader, documents: DocumentReader, *, max_labels: int) -> None:
        self._bodies, self._documents, self._max_labels = bodies, documents, max_labels

    async def read(self, request: web.Request, lease: Lease) -> Labelled:
        """Raises InvalidRequestError of the kind that fits, InvalidTextError,
        InvalidLabelsError, OverloadedError if an unannounced body finds no room."""
        if request.content_type == "multipart/form-data":
            limits = {IMAGE: 1, LABELS: self._max_labels, ONE_TEMPLATE: 1}
            chunks = self._bodies.chunks(request, lease)
            return of_form(await read_fields(request.headers[hdrs.CONTENT_TYPE], chunks, limits, too_many))
        if request.content_type == "application/json":
            return await self._documents.read(request, lease, lambda document: of_document(document, self._max_labels))
        raise unaccepted(request, f"multipart/form-data with {IMAGE!r} and {LABELS!r}, or {AS_JSON}")


def too_many(field: str, limit: int) -> InvalidRequestError:
    """The error for more than `limit` of a field."""
    if field != LABELS:
        return DuplicateFieldError(f"{field!r} was sent more than once; each request is about one image.")
    message = f"The request has more than {limit:,} labels (--max-texts, --max-queue)."
    return TooManyTextsError(message, limit=limit)


def of_form(found: Mapping[str, Sequence[Blob]]) -> Labelled:
    """Raises InvalidLabelsError."""
    template = found[ONE_TEMPLATE]
    chosen = _decoded(template[0]) if template else TEMPLATE
    return Labelled(found[IMAGE][0], Labels(tuple(map(_decoded, found[LABELS])), chosen))


def of_document(document: Document, most_labels: int) -> Labelled:
    """Of {"image": base64, "labels": [str], "template": str}, the last of which may be left out or null; and the
    model that may stand beside them.

    Raises InvalidRequestError of the kind that fits, InvalidTextError, InvalidLabelsError.
    """
    model = model_of(document)
    if unknown := set(document) - {IMAGE, LABELS, ONE_TEMPLATE}:
        raise UnexpectedFieldError(f"Expected 'image', 'labels' and 'template'; received {names(sorted(unknown))}.")
    if IMAGE not in document:
        raise MissingImageError(f"Expected the field 'image'; received {names(document)}.")
    labels, template = document.get(LABELS, []), document.get(ONE_TEMPLATE)
    if not is_string(document[IMAGE]):
        raise InvalidFieldError("'image' must be a base64 string.")
    if not isinstance(labels, list) or not all(map(is_string, labels)):
        raise InvalidFieldError("'labels' must be a list of strings.")
    if template is not None and not is_string(template):
        raise InvalidFieldError("'template' must be a string.")
    if len(labels) > most_labels:
        raise too_many(LABELS, most_labels)
    chosen = Labels(tuple(map(_text, labels)), TEMPLATE if template is None else _text(template))
    return Labelled(image_of(document[IMAGE]), chosen, model)


def _text(string: str | LongString) -> str:
    if len(string) > LONGEST_ESCAPE * LONGEST_LABEL:
        raise InvalidLabelsError(_TOO_LONG, limit=LONGEST_LABEL)
    return text_of(string)


def _decoded(part: Blob) -> str:
    if len(part) > _WIDEST * LONGEST_LABEL:
        raise InvalidLabelsError(_TOO_LONG, limit=LONGEST_LABEL)
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError:
        raise InvalidLabelsError("A label or the template is not text in UTF-8.") from None
