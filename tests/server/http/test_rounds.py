"""Rounds of the event loop: few files in each, all of them in turn, and nothing else than asyncio's own does."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain

import pytest

from clipsrv.server.http.rounds import FewAtOnce, each_had_its_turn, event_loop, run


@pytest.fixture
def selector() -> Iterator[FewAtOnce]:
    selector = FewAtOnce(8)
    yield selector
    selector.close()


def test_all_that_are_ready_have_a_turn_before_any_has_a_second(selector: FewAtOnce) -> None:
    with ExitStack() as open_files:
        for number in range(20):
            ours, theirs = (open_files.enter_context(one) for one in socket.socketpair())
            selector.register(ours, selectors.EVENT_READ, number)
            theirs.send(b"more than is read")
        rounds = [[key.data for key, events in selector.select()] for _ in range(5)]
    assert [len(found) for found in rounds] == [8] * 5
    assert sorted(list(chain(*rounds))[:20]) == list(range(20))


def test_events_are_those_asked_for(selector: FewAtOnce) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        selector.register(ours, selectors.EVENT_READ)
        assert selector.select(0) == []
        selector.modify(ours, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert [events for _, events in selector.select()] == [selectors.EVENT_WRITE]
        theirs.close()
        assert [events for _, events in selector.select()] == [selectors.EVENT_READ | selectors.EVENT_WRITE]
        selector.unregister(ours)
        assert selector.select(-1) == []


def test_a_wait_is_never_shorter_than_asked_for(selector: FewAtOnce) -> None:
    began = time.monotonic()
    assert selector.select(0.0101) == []
    assert time.monotonic() - began >= 0.0101


def test_a_loop_of_such_rounds_serves_more_callers_than_files_of_a_round() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()

    async def ask(port: int, text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        answer = await reader.read()
        writer.close()
        return answer

    async def ask_all() -> list[bytes]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            return await asyncio.gather(*(ask(server.sockets[0].getsockname()[1], b"%04d" % n) for n in range(50)))

    assert run(ask_all()) == [b"%04d" % n for n in range(50)]


def test_each_file_that_is_ready_has_had_its_turn_before_anything_else_goes_on() -> None:
    async def turns(files: int) -> int:
        loop, read = asyncio.get_running_loop(), set[int]()
        with ExitStack() as stack:
            for number in range(files):
                near, far = map(stack.enter_context, socket.socketpair())
                far.send(b"1")
                loop.add_reader(near, read.add, number)
                stack.callback(loop.remove_reader, near)
            await each_had_its_turn(files)
        return len(read)

    assert [run(turns(files)) for files in (0, 1, 60)] == [0, 1, 60]


def test_elsewhere_than_on_linux_the_loop_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[selectors.BaseSelector]()

    class Usual(selectors.SelectSelector):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(selectors, "DefaultSelector", Usual)
    monkeypatch.setattr(sys, "platform", "darwin")
    with closing(event_loop()) as loop:
        assert len(made) == 1
        assert loop.run_until_complete(asyncio.sleep(0, "runs")) == "runs"
