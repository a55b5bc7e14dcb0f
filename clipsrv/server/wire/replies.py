"""Vectors to response bodies: JSON, base64 in JSON, or a NumPy file. Knows nothing of the model or the request."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from clipsrv.runtime.vectors import Vectors

JSON, BASE64, NPY = "json", "base64", "npy"
JSON_TYPE, NPY_TYPE = "application/json", "application/x-npy"


def vectors_response(
    vectors: Sequence[Vectors | None], form: str, *, many: bool, extra: Mapping[str, Any]
) -> web.Response:
    """The body for one vector ({"embedding": ...}) or `many` ({"embeddings": [...], "count": n}), with `extra` keys.

    Floats are written with the fewest digits that read back as the same float32. A NumPy file has shape
    (n, dimensions) and rows of NaN for images that gave no vector.
    """
    if form == NPY:
        hole = np.full(extra["dimensions"], np.nan, np.float32)
        rows = np.stack([hole if row is None else row for row in vectors])
        return web.Response(body=to_npy(rows), content_type=NPY_TYPE)
    values = [row if row is None or form == JSON else to_base64(row) for row in vectors]
    body = {"embeddings": values, "count": len(values), **extra} if many else {"embedding": values[0], **extra}
    return web.Response(body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), content_type=JSON_TYPE)


def to_base64(vector: Vectors) -> str:
    """Little-endian float32 bytes of one vector in base64."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def to_npy(vectors: Vectors) -> bytes:
    """A NumPy file (format 1.0) of shape (n, dimensions), float32."""
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(vectors, "<f4"), version=(1, 0), allow_pickle=False)
    return file.getvalue()
