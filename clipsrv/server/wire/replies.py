"""Vectors to response bodies: JSON, base64 in JSON, or a NumPy file. Knows nothing of the model."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from clipsrv.runtime.vectors import Vectors
from clipsrv.serving.admission import Lease
from clipsrv.serving.outcome import Timings

JSON, BASE64, NPY, LINES = "json", "base64", "npy", "lines"
#: Vectors written in one go. Bytes of an answer that is left to the connection, which counts for as many anyway.
_ONE_GO, _SMALL = 64, 65_536
JSON_TYPE, NPY_TYPE, NDJSON_TYPE = "application/json", "application/x-npy", "application/x-ndjson"


async def vectors_response(
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
    if not many:
        body = _json({"embedding": vectors[0] if form == JSON else _encoded(vectors[0]), **extra})
        return web.Response(body=body, content_type=JSON_TYPE)
    written = await written_list(vectors, lambda index, row: row if form == JSON else _encoded(row))
    rest = _json({"count": len(vectors), **extra})[1:]
    return web.Response(body=b'{"embeddings":%s,%s' % (written, rest), content_type=JSON_TYPE)


async def written_list(vectors: Sequence[Vectors | None], entry: Callable[[int, Vectors | None], Any]) -> bytes:
    """A list in JSON that has for each vector what `entry` makes of its place and itself."""
    pieces = []
    for at in range(0, len(vectors), _ONE_GO):
        if at:
            await asyncio.sleep(0)  # to write thousands of vectors takes tenths of a second: others come in between
        piece = [entry(at + place, row) for place, row in enumerate(vectors[at : at + _ONE_GO])]
        pieces.append(_json(piece)[1:-1])
    return b"[%s]" % b",".join(pieces)


def stamp(response: web.StreamResponse, embedding_id: str, stages: Mapping[str, float]) -> None:
    """Names in headers whose vectors the answer was made of, and where its seconds went."""
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * took:.1f}" for name, took in stages.items())
    response.headers["X-Embedding-Id"] = embedding_id


def stamp_work(response: web.Response, embedding_id: str, read: float, timings: Timings, **more: float) -> None:
    """As `stamp`, of a request whose body took `read` seconds, with `more` stages; and whether its vectors were known:
    hit for all of them, miss for none, partial."""
    stages = {"read": read, "decode": timings.decode, "queue": timings.queue, "inference": timings.inference, **more}
    if timings.hits or timings.misses:
        stages["cache"] = timings.cache
        known = "partial" if timings.hits and timings.misses else "hit" if timings.hits else "miss"
        response.headers["X-Cache"] = known
    stamp(response, embedding_id, stages)


async def deliver(request: web.Request, response: web.Response, lease: Lease) -> web.Response:
    """Sends a large answer, and until the caller has taken it holds its bytes against those in flight, in the place of
    the body's: who does not take answers shall not fill memory with them."""
    size = len(response.body) if isinstance(response.body, bytes) else 0
    if size > _SMALL:
        lease.exchange(size)
        await response.prepare(request)
        await response.write_eof()
    return response


def json_response(value: Any) -> web.Response:
    """An answer of plain values, and of numpy's, written with as few digits as tell them."""
    return web.Response(body=_json(value), content_type=JSON_TYPE)


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _encoded(row: Vectors | None) -> str | None:
    return None if row is None else to_base64(row)


def to_base64(vector: Vectors) -> str:
    """Little-endian float32 bytes of one vector in base64."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def to_npy(vectors: Vectors) -> bytes:
    """A NumPy file (format 1.0) of shape (n, dimensions), float32."""
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(vectors, "<f4"), version=(1, 0), allow_pickle=False)
    return file.getvalue()
