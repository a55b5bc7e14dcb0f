"""Whole HTTP requests for images or texts, in the form that each server takes, and the vector in its answer."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.loads import Contents

#: Contents, their images' format in Pillow's words, and the host, to the bytes of a request.
Ask = Callable[[Contents, str, str], bytes]

_BOUNDARY = "----clipsrvbench7d1c0a"


def ask_guide(contents: Contents, format: str, host: str) -> bytes:
    """As the guide's client does: multipart for images, JSON for texts. For clipsrv and the baseline."""
    images = _images(contents)
    if not images:
        body = {"text": contents[0]} if len(contents) == 1 else {"texts": contents}
        return _post_json("/embed/text", host, body)
    field, path = ("image", "/embed") if len(images) == 1 else ("images", "/embed/batch")
    body_of_form = _form(field, f"image/{format.lower()}", images)
    return _post(path, host, f"multipart/form-data; boundary={_BOUNDARY}", body_of_form)


def ask_infinity(contents: Contents, format: str, host: str) -> bytes:
    """The same as infinity takes it: strings in JSON, images as data URIs."""
    images = _images(contents)
    inputs = [_data_uri(image, format) for image in images] or contents
    body = {"model": "rival", "modality": "image" if images else "text", "input": inputs}
    return _post_json("/embeddings", host, body)


def ask_vllm(contents: Contents, format: str, host: str) -> bytes:
    """The same as vLLM takes it: texts as strings, an image as the one message of a chat. Raises ValueError for more
    than one image."""
    images = _images(contents)
    if not images:
        return _post_json("/v1/embeddings", host, {"model": "rival", "input": contents})
    (image,) = images
    part = {"type": "image_url", "image_url": {"url": _data_uri(image, format)}}
    return _post_json("/v1/embeddings", host, {"model": "rival", "messages": [{"role": "user", "content": [part]}]})


def first_vector(answer: Mapping[str, Any]) -> list[float]:
    """Of an answer to any of these. Raises KeyError or IndexError if it is another."""
    if "embeddings" in answer:
        return answer["embeddings"][0]
    return answer["embedding"] if "embedding" in answer else answer["data"][0]["embedding"]


def _images(contents: Contents) -> list[bytes]:
    return [one for one in contents if isinstance(one, bytes)]


def _data_uri(image: bytes, format: str) -> str:
    return f"data:image/{format.lower()};base64,{b64encode(image).decode()}"


def _post_json(path: str, host: str, body: Mapping[str, Any]) -> bytes:
    return _post(path, host, "application/json", json.dumps(body).encode())


def _post(path: str, host: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _form(field: str, kind: str, images: list[bytes]) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{index}.img"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + image
        + b"\r\n"
        for index, image in enumerate(images)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
