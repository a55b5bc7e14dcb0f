"""What arrives on the socket before it is a request, and how long it may take: refused in JSON, or closed in time."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest

from tests.support.faulty import HangingEncoder, SlowEncoder
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


async def test_a_length_over_the_limit_is_refused_from_the_header_alone() -> None:
    async with serving() as served:
        began = time.monotonic()
        reply = await served.send(request("POST", "/embed", None, "Content-Length: 9000000000", IMAGE))
        assert (reply.status, reply.code) == (413, "body_too_large")
        assert reply.headers["connection"] == "close"
        assert time.monotonic() - began < 1
        await assert_as_before(served)


async def test_expect_is_answered_with_100_and_then_the_vector() -> None:
    head, body = request("POST", "/embed", GOOD, IMAGE, "Expect: 100-continue").split(b"\r\n\r\n", 1)
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_reply(reader)).status == 200
        writer.write(OK)
        assert (await read_reply(reader)).status == 200, "the connection goes on"
        writer.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Expect: 100-continue", "Content-Length: 9000000000"), 413),
        (("Expect: 100-continue", LENGTH, "Content-Encoding: gzip"), 415),
        (("Expect: 100-continue", LENGTH, "Host: evil.example"), 403),
        (("Expect: nonsense", LENGTH), 417),
    ],
)
async def test_what_the_headers_refuse_is_refused_instead_of_100(headers: tuple[str, ...], status: int) -> None:
    async with serving() as served:
        reply = await served.send(request("POST", "/embed", None, IMAGE, *headers))
        assert reply.status == status
        assert reply.code


async def test_without_a_key_or_room_the_upload_is_refused_instead_of_100() -> None:
    headers = (IMAGE, LENGTH, "Expect: 100-continue")
    async with serving(api_keys="k" * 32) as served:
        assert (await served.send(request("POST", "/embed", None, *headers))).status == 401
    encoder = HangingEncoder()
    async with serving(make_model(encoder), max_queue=1, max_images=1) as served:
        encoder.go_on.clear()
        busy = asyncio.create_task(served.post("/embed", GOOD))
        await eventually(lambda: served.embedder.workshop.slots.in_use == 1)
        assert (await served.send(request("POST", "/embed", None, *headers))).status == 429
        encoder.go_on.set()
        assert (await busy).status == 200


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_chunked_upload_is_an_upload(size: int) -> None:
    body = b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (GOOD[at : at + size] for at in range(0, len(GOOD), size))
    )
    async with serving() as served:
        reply = await served.send(request("POST", "/embed", body + b"0\r\n\r\n", IMAGE, "Transfer-Encoding: chunked"))
        assert reply.status == 200


async def test_a_hundred_thousand_chunks_of_one_byte_cost_no_memory() -> None:
    async with serving() as served:
        before = psutil.Process().memory_info().rss
        body = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
        reply = await served.send(request("POST", "/embed", body, IMAGE, "Transfer-Encoding: chunked"))
        assert reply.status == 422
        assert psutil.Process().memory_info().rss - before < 32 * 2**20
        await assert_as_before(served)


async def test_the_limit_counts_what_is_sent_in_chunks() -> None:
    async with serving(max_body_bytes=10_000) as served:
        body = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        reply = await served.send(request("POST", "/embed", body * 11, IMAGE, "Transfer-Encoding: chunked"))
        assert (reply.status, reply.code) == (413, "body_too_large")


CHUNKED = ("Transfer-Encoding: chunked", IMAGE)
MALFORMED = {
    "random bytes": b"\x93\x00\xff\x17\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 20,
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no Host": b"GET /health HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a bare line feed": b"GET /health HTTP/1.1\nHost: localhost\nX: y\n\n",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\r\n z\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "length and chunks": request("POST", "/embed", b"0\r\n\r\n", "Content-Length: 5", *CHUNKED),
    "two lengths": request("POST", "/embed", b"", "Content-Length: 5", "Content-Length: 6", IMAGE),
    "a negative length": request("POST", "/embed", b"", "Content-Length: -1", IMAGE),
    "a length in words": request("POST", "/embed", b"", "Content-Length: five", IMAGE),
    "an unknown transfer coding": request("POST", "/embed", b"", "Transfer-Encoding: xchunked", IMAGE),
    "a bad chunk size": request("POST", "/embed", b"zz\r\nx\r\n", *CHUNKED),
    "a huge chunk size": request("POST", "/embed", b"f" * 20 + b"\r\nx\r\n", *CHUNKED),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_not_http_is_400_in_json_without_an_echo(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        reply = await served.send(MALFORMED[name])
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert b"aiohttp" not in reply.body
        assert reply.headers["server"] == "clipsrv"
        await assert_as_before(served)
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"secret" * 2000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"secret" * 2000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: secret\r\n" * 200 + b"\r\n",
    ],
)
async def test_long_lines_and_many_headers_are_431_without_an_echo(sent: bytes) -> None:
    async with serving() as served:
        reply = await served.send(sent)
        assert (reply.status, reply.code) == (431, "headers_too_large")
        assert b"secret" not in reply.body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
async def test_a_body_in_any_content_encoding_is_415_before_it_is_read(coding: str) -> None:
    body = gzip.compress(b"\0" * 1_000_000)
    async with serving() as served:
        reply = await served.post("/embed", body[:500], "image/png", f"Content-Encoding: {coding}")
        assert (reply.status, reply.code) == (415, "unsupported_content_encoding")
        assert reply.headers["accept-encoding"] == "identity"
        await assert_as_before(served)


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
            await asyncio.sleep(3)  # six times what it has to take an answer
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
        async with asyncio.timeout(5):
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
        await asyncio.sleep(1.2)
        await assert_as_before(served)


async def test_fifty_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"".join(request("POST", f"/embed?x={index}", b"") for index in range(50)) + OK)
        assert [(await read_reply(reader)).status for _ in range(51)] == [400] * 50 + [200]
        writer.close()


async def test_a_caller_that_closes_its_side_gets_no_answer_and_leaves_nothing_behind() -> None:
    async with serving(make_model(SlowEncoder(0.2))) as served:
        reader, writer = await served.connect()
        writer.write(OK)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(0.3)
        await assert_as_before(served)


async def test_a_caller_gone_during_its_upload_is_counted_and_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        for _ in range(10):
            _, writer = await served.connect()
            writer.write(OK[:-10])
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.transport.abort()
        await asyncio.sleep(0.2)
        metrics = (await served.get("/metrics")).body.decode()
        assert 'clipsrv_requests_total{route="/embed",status="499"} 10.0' in metrics
        assert 'clipsrv_cancelled_total{stage="upload"} 10.0' in metrics
        await assert_as_before(served)
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_an_upgrade_is_ignored(protocol: str) -> None:
    async with serving() as served:
        reply = await served.get("/health", f"Upgrade: {protocol}", "Connection: Upgrade")
        assert reply.status == 200


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
            await asyncio.sleep(0.2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        writer.write(OK)
        assert (await read_reply(reader)).status == 200
        writer.close()
        for sock in clients:
            sock.close()
        await asyncio.sleep(1.2)
        await assert_as_before(served)


async def test_absolute_form_is_routed_like_any_other() -> None:
    async with serving() as served:
        assert (await served.get(f"http://localhost:{served.port}/health")).status == 200


async def test_common_headers_are_on_every_answer() -> None:
    async with serving() as served:
        for reply in (
            await served.get("/health"),
            await served.get("/nowhere"),
            await served.send(b"junk\r\n\r\n"),
            await served.post("/embed", GOOD),
        ):
            assert reply.headers["server"] == "clipsrv"
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] == "no-store"
            assert len(reply.headers["x-request-id"]) == 32
