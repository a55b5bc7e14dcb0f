"""The encodings that vectors leave in, whole or in pieces, and what a large answer holds until it is taken."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clipsrv.server.wire.replies import BASE64, JSON, deliver, to_base64, to_npy, vectors_response
from clipsrv.serving.admission import Admission
from tests.support.serving import eventually

rows = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 64)), elements=st.integers(-1000, 1000).map(float)
)


@given(rows)
def test_base64_is_little_endian_float32(vectors: np.ndarray) -> None:
    assert np.array_equal(np.frombuffer(base64.b64decode(to_base64(vectors[0])), "<f4"), vectors[0])
    swapped = vectors[0].astype(">f4")
    assert to_base64(swapped) == to_base64(vectors[0])


@given(rows)
def test_a_numpy_file_reads_back(vectors: np.ndarray) -> None:
    read = np.load(BytesIO(to_npy(vectors)), allow_pickle=False)
    assert read.dtype == np.dtype("<f4")
    assert np.array_equal(read, vectors)


@pytest.mark.parametrize("form", [JSON, BASE64])
@pytest.mark.parametrize("count", [1, 64, 65, 200])
async def test_many_vectors_written_in_pieces_are_one_document(form: str, count: int) -> None:
    vectors = [np.full(3, number, np.float32) if number % 7 else None for number in range(count)]
    response = await vectors_response(vectors, form, many=True, extra={"model": "m"})
    assert isinstance(response.body, bytes)
    document = json.loads(response.body)
    assert (document["count"], document["model"], list(document)) == (count, "m", ["embeddings", "count", "model"])
    for vector, written in zip(vectors, document["embeddings"], strict=True):
        if vector is None:
            assert written is None
        else:
            read = written if form == JSON else np.frombuffer(base64.b64decode(written), "<f4")
            assert np.array_equal(read, vector)


async def test_the_loop_is_free_between_the_pieces_of_a_long_answer() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    await vectors_response([np.zeros(3, np.float32)] * 640, JSON, many=True, extra={})
    other.cancel()
    assert turns >= 9


@asynccontextmanager
async def answering(
    size: int, in_flight: Admission
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that has asked for an answer of `size` bytes and reads none of it by itself."""

    async def answer(request: web.Request) -> web.Response:
        with in_flight.take(5) as lease:
            return await deliver(request, web.Response(body=b"x" * size), lease)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0], limit=1000)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    yield reader, writer
    writer.close()
    await runner.cleanup()


async def test_a_large_answer_is_held_against_the_bytes_in_flight_until_it_is_taken() -> None:
    size, in_flight = 30_000_000, Admission(100, "bytes")
    async with answering(size, in_flight) as (reader, _):
        await eventually(lambda: in_flight.in_use == size)  # more than there is room for: it is there already
        while in_flight.in_use:
            await reader.read(2**20)


async def test_a_caller_that_goes_away_leaves_nothing_of_its_answer() -> None:
    size, in_flight = 30_000_000, Admission(100, "bytes")
    async with answering(size, in_flight) as (_, writer):
        await eventually(lambda: in_flight.in_use == size)
        writer.transport.abort()
        await eventually(lambda: in_flight.in_use == 0)


async def test_a_small_answer_is_left_to_the_connection() -> None:
    in_flight = Admission(100, "bytes")
    async with answering(9, in_flight) as (reader, _):
        assert await reader.readuntil(b"xxxxxxxxx")
        assert in_flight.in_use == 0
