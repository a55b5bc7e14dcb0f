"""How long a caller may take, and what is left when it goes: refused in time, and never somebody else's loss."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest

from tests.support.faulty import SlowEncoder
from tests.support.serving import (
    Served,
    assert_as_before,
    drawn,
    eventually,
    make_model,
    read_reply,
    request,
    serving,
)

GOOD = drawn(1)
IMAGE = "Content-Type: image/png"
OK = request("POST", "/embed", GOOD, IMAGE)
LENGTH = f"Content-Length: {len(GOOD)}"


@asynccontextmanager
async def impatient(**settings: float) -> AsyncIterator[Served]:
    times = {"header_timeout": 0.5, "body_timeout": 1.0, "min_upload_rate": 10**9, "answer_timeout": 0.5}
    chosen: dict[str, Any] = {**times, **settings}
    async with serving(**chosen) as served:
        yield served


async def drip(writer: asyncio.StreamWriter, data: bytes, pause: float) -> None:
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await asyncio.sleep(pause)


async def test_headers_that_drip_are_told_408_and_closed_on_every_request_of_a_connection() -> None:
    async with impatient() as served:
        for first in (b"", OK):
            reader, writer = await served.connect()
            if first:
                writer.write(first)
                assert (await read_reply(reader)).status == 200
            began = time.monotonic()
            dripping = asyncio.create_task(drip(writer, b"POST /embed HTTP/1.1\r\n" * 50, 0.02))
            reply = await read_reply(reader)
            assert (reply.status, reply.code) == (408, "request_timeout")
            assert 0.3 < time.monotonic() - began < 8
            assert await reader.read() == b""
            dripping.cancel()
            writer.close()
        await assert_as_before(served)


async def test_a_body_that_stalls_is_408_after_the_pause() -> None:
    async with impatient(body_timeout=60) as served:
        began = time.monotonic()
        reply = await served.send(request("POST", "/embed", GOOD[:2], IMAGE, LENGTH))
        assert (reply.status, reply.code) == (408, "request_timeout")
        assert 0.4 < time.monotonic() - began < 8
        await assert_as_before(served)


async def test_a_body_that_drips_is_408_after_its_time() -> None:
    async with impatient(header_timeout=20) as served:
        reader, writer = await served.connect()
        began = time.monotonic()
        writer.write(request("POST", "/embed", GOOD[:2], IMAGE, "Content-Length: 5000"))
        dripping = asyncio.create_task(drip(writer, b"x" * 4000, 0.02))
        assert (await read_reply(reader)).status == 408
        assert 0.9 < time.monotonic() - began < 8
        dripping.cancel()
        writer.close()
        await assert_as_before(served)


async def test_a_slow_but_steady_upload_gets_a_second_more_for_each_stretch_of_it() -> None:
    body = drawn(2, size=(200, 200), form="BMP")
    async with impatient(header_timeout=20, body_timeout=0.1, min_upload_rate=5_000) as served:
        head, sent = request("POST", "/embed", body, IMAGE).split(b"\r\n\r\n", 1)
        reader, writer = await served.connect()
        writer.write(head + b"\r\n\r\n" + sent[:20_000])
        began = time.monotonic()
        for at in range(20_000, len(sent), 20_000):
            await asyncio.sleep(0.1)
            writer.write(sent[at : at + 20_000])
        assert (await read_reply(reader)).status == 200
        assert time.monotonic() - began > 0.4
        writer.close()


async def test_a_caller_that_does_not_take_its_answers_is_cut_off() -> None:
    async with impatient(header_timeout=20) as served:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (served.host, served.port))
            many = request("GET", "/openapi.json", None) * 1000  # 19 MB of answers: no kernel holds them
            await asyncio.get_running_loop().sock_sendall(sock, many)
            await eventually(lambda: served.connections == 1)
            await eventually(lambda: served.connections == 0)
            taken = 0
            with suppress(ConnectionError):
                async with asyncio.timeout(30):
                    while chunk := await asyncio.get_running_loop().sock_recv(sock, 2**20):
                        taken += len(chunk)
            assert taken < 1000 * len((await served.get("/openapi.json")).body)
        await assert_as_before(served)


async def test_idle_connections_are_closed_and_take_no_slot() -> None:
    async with impatient() as served:
        idle = [await served.connect() for _ in range(100)]
        assert (await served.post("/embed", GOOD)).status == 200
        async with asyncio.timeout(30):
            for reader, writer in idle:
                assert await reader.read() == b""
                writer.close()


async def test_a_connection_over_the_limit_is_told_503_and_the_others_go_on() -> None:
    async with serving(max_connections=5) as served:
        held = [await served.connect() for _ in range(5)]
        reader, writer = await served.connect()
        reply = await read_reply(reader)
        assert (reply.status, reply.code) == (503, "too_many_connections")
        assert reply.headers["retry-after"]
        writer.close()
        for reader, writer in held:
            writer.write(OK)
            assert (await read_reply(reader)).status == 200
            writer.close()
        await eventually(lambda: served.connections == 0)
        await assert_as_before(served)


async def test_a_caller_that_closes_its_side_gets_no_answer_and_leaves_nothing_behind() -> None:
    async with serving(make_model(SlowEncoder(0.2))) as served:
        reader, writer = await served.connect()
        writer.write(OK)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await eventually(lambda: served.embedder.workshop.slots.in_use == 0)
        await assert_as_before(served)


async def test_a_caller_gone_during_its_upload_is_counted_and_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        for _ in range(10):
            _, writer = await served.connect()
            writer.write(OK[:-10])
            await eventually(lambda: served.bytes_held == len(GOOD) - 10)
            writer.transport.abort()
            await eventually(lambda: served.bytes_held == 0)
        metrics = (await served.get("/metrics")).body.decode()
        assert 'clipsrv_requests_total{route="/embed",status="499"} 10.0' in metrics
        assert 'clipsrv_cancelled_total{stage="upload"} 10.0' in metrics
        await assert_as_before(served)
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


async def test_too_few_file_descriptors_stop_neither_the_server_nor_the_loop() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving() as served:
        used = psutil.Process().num_fds()
        reader, writer = await served.connect()
        clients = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, hard))
        try:
            for _ in range(60):
                sock = socket.socket()
                clients.append(sock)
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", served.port))
        except OSError:
            pass
        finally:
            await asyncio.sleep(0.2)  # for the server to find that it can accept no more
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        writer.write(OK)
        assert (await read_reply(reader)).status == 200
        writer.close()
        for sock in clients:
            sock.close()
        await assert_as_before(served)
