"""How long a connection may be idle, how slow its heads, who makes room, how much is read at a go, and what of aiohttp
and asyncio all this leans on."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any

import pytest
from aiohttp import web

from clipsrv.server.http.connection import INSIDE, Connection
from tests.support.serving import Served, drawn, read_reply, request, serving

HEALTH = request("GET", "/health", None)
SIGNATURES = {
    "connection_made": "transport",
    "data_received": "data",
    "connection_lost": "exc",
    "resume_reading": "resume_parser",
    "handle_error": "request status exc message",
    "finish_response": "request resp start_time",
    "keep_alive": "val",
    "pause_writing": "",
    "resume_writing": "",
    "close": "",
    "force_close": "",
    "_make_server": "",
}


@pytest.mark.parametrize(("others", "most"), [(0, 65_536), (31, 16_384), (99, 8_192)])
async def test_the_more_connections_there_are_the_less_is_read_of_each_in_one_go(
    others: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, received = list[int](), Connection.data_received

    def counted(self: Connection, data: bytes) -> None:
        sizes.append(len(data))
        received(self, data)

    monkeypatch.setattr(Connection, "data_received", counted)
    async with serving() as served:
        idle = [(await ask(served))[1] for _ in range(others)]
        assert (await served.post("/embed", bytes(2_000_000))).status == 422
        for writer in idle:
            writer.close()
    assert sum(sizes) > 2_000_000
    assert most // 2 < max(sizes) <= most


async def test_a_body_in_chunks_of_a_byte_has_the_parser_go_on_only_where_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resumed, fed = list[None](), web.RequestHandler.data_received

    def counted(self: web.RequestHandler, data: bytes) -> None:
        fed(self, data)
        if not data:
            resumed.append(None)

    monkeypatch.setattr(web.RequestHandler, "data_received", counted)
    async with serving() as served:
        body = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
        head = request("POST", "/embed", None, "Content-Type: image/png", "Transfer-Encoding: chunked")
        assert (await served.send(head, body)).status == 422
    assert len(resumed) < 100


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in INSIDE.items() for name in names])
async def test_aiohttp_and_asyncio_still_have_what_connections_lean_on(kind: type, name: str) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    server = web.Server(answer)
    made = {web.RequestHandler: server(), web.Server: server, web.AppRunner: web.AppRunner(web.Application())}
    assert hasattr(made.get(kind, kind), name)
    if name in SIGNATURES:
        assert " ".join(list(inspect.signature(getattr(kind, name)).parameters)[1:]) == SIGNATURES[name]


async def test_a_request_is_made_with_its_message_and_its_connection() -> None:
    """Connections learn from this call that a head is whole; the message is rewritten where its version is not ours."""
    seen: list[object] = []

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    plain = web.Server(answer)

    def make(message: Any, payload: Any, connection: Any, *others: Any) -> web.BaseRequest:
        seen.extend((message, connection))
        return plain.request_factory(message, payload, connection, *others)

    runner = web.ServerRunner(web.Server(answer, request_factory=make))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await runner.cleanup()
    message, connection = seen
    assert message._replace(version=(2, 0)).version == (2, 0)  # type: ignore[attr-defined]
    assert isinstance(connection, web.RequestHandler)


async def ask(served: Served, *, then_wait: float = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has been answered once."""
    reader, writer = await served.connect()
    writer.write(HEALTH)
    assert (await read_reply(reader)).status == 200
    await asyncio.sleep(then_wait)
    return reader, writer


async def test_an_answered_connection_may_be_idle_longer_than_a_head_may_take() -> None:
    async with serving(header_timeout=0.3) as served:
        reader, writer = await ask(served, then_wait=1)
        writer.write(HEALTH)
        assert (await read_reply(reader)).status == 200
        writer.close()


async def test_an_idle_connection_is_closed_after_its_time_without_a_word() -> None:
    async with serving(keep_alive=0.3) as served:
        reader, writer = await ask(served)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_a_head_begun_late_in_idleness_has_its_own_time() -> None:
    async with serving(keep_alive=0.5, header_timeout=20) as served:
        reader, writer = await ask(served)
        writer.write(HEALTH[:10])
        await asyncio.sleep(1)
        writer.write(HEALTH[10:])
        assert (await read_reply(reader)).status == 200
        writer.close()


async def test_the_head_of_a_later_request_must_still_come_in_time() -> None:
    async with serving(keep_alive=60, header_timeout=0.5) as served:
        reader, writer = await ask(served)
        writer.write(HEALTH[:10])
        async with asyncio.timeout(20):
            reply = await read_reply(reader)
        assert (reply.status, reply.code) == (408, "request_timeout")
        writer.close()


async def test_a_body_slower_than_a_head_may_be_is_no_late_head() -> None:
    whole = request("POST", "/embed", drawn(1), "Content-Type: image/png")
    async with serving(header_timeout=1.5) as served:
        reader, writer = await served.connect()
        for at in range(0, len(whole), len(whole) // 6):
            writer.write(whole[at : at + len(whole) // 6])
            await asyncio.sleep(0.4)
        assert (await read_reply(reader)).status == 200
        writer.close()


async def test_the_connection_idle_longest_makes_room_for_a_new_one() -> None:
    async with serving(max_connections=3, header_timeout=60) as served:
        idle = [await ask(served, then_wait=0.05) for _ in range(3)]
        reader, writer = await ask(served)
        async with asyncio.timeout(20):
            assert await idle[0][0].read() == b""
        for there, out in idle[1:]:
            out.write(HEALTH)
            assert (await read_reply(there)).status == 200
        for _, out in (*idle, (reader, writer)):
            out.close()


async def test_who_has_begun_a_request_need_not_make_room() -> None:
    async with serving(max_connections=2, header_timeout=60) as served:
        begun = [await ask(served), await served.connect()]
        for _, writer in begun:
            writer.write(HEALTH[:10])
            await writer.drain()
        await asyncio.sleep(0.2)
        reader, writer = await served.connect()
        assert (await read_reply(reader)).status == 503
        writer.close()
        for reader, writer in begun:
            writer.write(HEALTH[10:])
            assert (await read_reply(reader)).status == 200
            writer.close()


async def test_who_is_turned_away_and_has_gone_meanwhile_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(max_connections=2) as served:
        held = [await served.connect() for _ in range(2)]

        def come_and_go() -> None:
            for _ in range(300):
                with socket.create_connection((served.host, served.port)):
                    pass

        await asyncio.gather(*(asyncio.to_thread(come_and_go) for _ in range(2)))
        for _, writer in held:
            writer.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9"])
async def test_another_version_is_answered_in_our_own_and_named(version: str) -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(f"GET /health {version}\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert f"{version} is not spoken here" in (await reader.read(300)).decode()
        writer.close()


@pytest.mark.parametrize("path", ["/embed", "/nowhere"])
async def test_an_expectation_that_cannot_be_met_carries_the_callers_id(path: str) -> None:
    async with serving() as served:
        headers = ("Expect: nonsense", "X-Request-Id: mine", "Content-Length: 0")
        reply = await served.send(request("POST", path, None, *headers))
    assert (reply.status, reply.code) == (417, "expectation_failed")
    assert reply.headers["x-request-id"] == reply.json["request_id"] == "mine"
