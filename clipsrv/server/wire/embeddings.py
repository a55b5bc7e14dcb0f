"""The body of OpenAI's /v1/embeddings, in the dialects that its clients speak, to items and wishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipsrv.server.wire.documents import Document
from clipsrv.server.wire.envelope import EmptyBatchError, InvalidFieldError
from clipsrv.server.wire.inputs import is_data_uri, is_string, text_of
from clipsrv.server.wire.items import Entry

FLOAT, BASE64 = "float", "base64"
#: Names of one field: OpenAI's, then those of Jina's clients.
ENCODINGS = ("encoding_format", "encoding_type", "embedding_type")
SIZES = ("dimensions", "output_dimension")
#: Where an object holds its image: Jina's, infinity's, llama-index's, OpenAI's and Cohere's names.
_IMAGES = ("image", "bytes", "url", "image_url", "image_base64")
_CONTENTS = ("text", *_IMAGES, "content")
_TOKENS = (
    "Token ids cannot be read: every model has its own. Send the texts themselves (in LangChain: "
    "check_embedding_ctx_length=False)."
)


@dataclass(frozen=True)
class Wishes:
    """What a request asks of the answer; None for the model's own."""

    model: str | None = None
    encoding: str = FLOAT
    dimensions: int | None = None


def embeddings_of(document: Document) -> tuple[Sequence[Entry], Wishes]:
    """Entries in the order sent, and what is asked of the answer; `user` and fields nobody knows are passed over.

    Raises InvalidFieldError and EmptyBatchError, which name the field in their detail `param`.
    """
    wishes = Wishes(_name(document), _encoding(document), _size(document))
    if (document.get("input") is None) == (document.get("messages") is None):
        raise _wrong("input", "Send 'input': a text, an image, or a list of them; or 'messages' in its place.")
    if document.get("messages") is not None:
        return [_of_messages(document["messages"])], wishes
    values, images = document["input"], _modality(document) == "image"
    if not isinstance(values, list):
        return [_entry(values, "input", bare_images=images)], wishes
    if not values:
        raise EmptyBatchError("'input' is empty; send at least one text or image.", param="input")
    entries = [_entry(value, f"input[{place}]", bare_images=images) for place, value in enumerate(values)]
    return entries, wishes


def _entry(value: Any, where: str, *, bare_images: bool = False) -> Entry:
    if is_string(value):
        return Entry(value, bare_images or is_data_uri(value), where)
    if isinstance(value, dict):
        return _of_object(value, where)
    if isinstance(value, list | int | float) and not isinstance(value, bool):
        raise InvalidFieldError(_TOKENS, param="input")
    raise _wrong(where, f"{where!r} must be a text, a data URI of an image, or an object that holds one of them.")


def _of_object(value: Document, where: str) -> Entry:
    found = [name for name in _CONTENTS if value.get(name) is not None]
    if len(found) != 1:
        both = "each item is one text or one image, never a mean of both"
        raise _wrong(where, f"{where!r} must hold exactly one of {', '.join(_CONTENTS)}: {both}.")
    (name,) = found
    content = value[name]
    if name == "content":
        return _of_content(content, where)
    if name == "image_url" and isinstance(content, dict):
        content = content.get("url")
    if not is_string(content):
        raise _wrong(where, f"{name!r} of {where!r} must be a string.")
    return Entry(content, name != "text", where)


def _of_content(content: Any, where: str) -> Entry:
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if is_string(content):
        return _entry(content, where)
    if not isinstance(content, dict) or "content" in content:
        raise _wrong(where, f"'content' of {where!r} must be one part, a text or an image: it becomes one vector.")
    return _of_object(content, where)


def _of_messages(messages: Any) -> Entry:
    if not (isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], dict)):
        raise _wrong("messages", "'messages' must be one message of the user: it becomes one vector.")
    (message,) = messages
    if message.get("role", "user") != "user" or message.get("content") is None:
        raise _wrong("messages", "'messages' must be one message, of the role 'user', with its 'content'.")
    return _of_content(message["content"], "messages[0]")


def _name(document: Document) -> str | None:
    name = document.get("model")
    if name is None:
        return None
    if not is_string(name):
        raise _wrong("model", "'model' must be a string.")
    return text_of(name)


def _encoding(document: Document) -> str:
    found = set[str]()
    for name in ENCODINGS:
        value = document.get(name)
        if isinstance(value, list) and len(value) == 1:  # of Jina's: several at once
            value = value[0]
        if value in (FLOAT, BASE64):
            found.add(value)
        elif value is not None:
            raise _wrong(name, f"{name!r} must be {FLOAT!r} or {BASE64!r}: vectors have no other form here.")
    if len(found) > 1:
        raise _wrong(ENCODINGS[0], f"{' and '.join(ENCODINGS)} ask for two forms: send one of them.")
    return found.pop() if found else FLOAT


def _size(document: Document) -> int | None:
    found = {name: document[name] for name in SIZES if document.get(name) is not None}
    for name, size in found.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise _wrong(name, f"{name!r} must be a whole number, at least 1.")
    if len(set(found.values())) > 1:
        raise _wrong(SIZES[0], f"{' and '.join(SIZES)} ask for two sizes: send one of them.")
    return next(iter(found.values()), None)


def _modality(document: Document) -> str:
    """infinity's: what bare strings are."""
    modality = document.get("modality") or "text"
    if modality not in ("text", "image"):
        raise _wrong("modality", "'modality' must be 'text' or 'image'.")
    return str(modality)


def _wrong(where: str, message: str) -> InvalidFieldError:
    return InvalidFieldError(message, param=where)
