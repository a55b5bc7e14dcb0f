"""What arrives on the socket before it is a request: how it is framed, encoded and announced, or not HTTP at all."""

from __future__ import annotations

import asyncio
import gzip

import psutil
import pytest

from tests.support.faulty import HangingEncoder
from tests.support.serving import (
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
        reply = await served.send(request("POST", "/embed", None, "Content-Length: 9000000000", IMAGE))
        assert (reply.status, reply.code) == (413, "body_too_large")
        assert reply.headers["connection"] == "close"
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
        encoder.shut()
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


async def test_fifty_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"".join(request("POST", f"/embed?x={index}", b"") for index in range(50)) + OK)
        assert [(await read_reply(reader)).status for _ in range(51)] == [400] * 50 + [200]
        writer.close()


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_an_upgrade_is_ignored(protocol: str) -> None:
    async with serving() as served:
        reply = await served.get("/health", f"Upgrade: {protocol}", "Connection: Upgrade")
        assert reply.status == 200


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
