"""Files and addresses that the system allows: raised as far as they go, and connections kept within them."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from clipsrv.server.allowance import FewFiles, Room, files_for, open_files, room_for
from tests.support.server import ROOT, ServerProcess
from tests.support.wire import request


@pytest.mark.parametrize(
    ("connections", "files", "room"),
    [
        (2048, 3200, Room(2048, 1024)),  # as many as are wanted
        (2048, 1_000_000, Room(2048, 1024)),
        (2048, 1024, Room(672, 224)),  # the usual hard limit of old systems
        (2048, 256, Room(96, 32)),
        (10, 256, Room(10, 32)),  # fewer than files allow
        (2048, 130, Room(1, 1)),  # next to none: one caller at a time
        (2048, 16, Room(1, 1)),
    ],
)
def test_connections_and_what_comes_in_one_go_fit_into_the_files_there_are(
    connections: int, files: int, room: Room
) -> None:
    assert room_for(connections, 64, files) == room
    assert files < 200 or room.connections + 64 + room.backlog + 64 <= files
    assert files_for(2048, 64) == 3200


def limited_to(soft: int, hard: int, wanted: int) -> list[int]:
    """What open_files gives in a process of these limits, and the limit it has then."""
    program = (
        "import resource, sys; from clipsrv.server.allowance import open_files;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        f"print(open_files({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_the_soft_limit_of_files_is_raised_as_far_as_needed_and_as_the_hard_one_allows() -> None:
    assert limited_to(256, 1024, 600) == [600, 600]
    assert limited_to(256, 512, 600) == [512, 512]
    assert limited_to(700, 1024, 600) == [700, 700], "never lowered"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_files(64) >= 64
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard


async def test_that_no_file_is_left_is_said_once_in_a_while_and_everything_else_as_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, few = asyncio.get_running_loop(), FewFiles()
    for _ in range(1000):
        few.handle(loop, {"message": "accept", "exception": OSError(errno.EMFILE, "Too many open files")})
    assert [record.message for record in caplog.records] == [
        "a connection cannot be accepted: Too many open files; raise ulimit -n"
    ]
    few.handle(loop, {"message": "something else", "exception": OSError(errno.EPIPE, "Broken pipe")})
    few.handle(loop, {"message": "nothing raised"})
    assert "something else" in caplog.text
    assert "nothing raised" in caplog.text


@pytest.fixture
def frugal(models_dir: Path) -> Iterator[ServerProcess]:
    """A server that may have 256 files open, and not one more."""
    flags = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", 0)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
        "from clipsrv.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    server = ServerProcess(*flags, command=[sys.executable, "-c", program])
    yield server.ready()
    server.close()


def seconds_of_work(server: ServerProcess) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_flood_of_connections_where_files_are_few_neither_spins_nor_fills_the_log(frugal: ServerProcess) -> None:
    assert "96 connections at most, and not 2048" in frugal.log
    health = request("GET", "/health", None)
    with socket.create_connection(frugal.address, 20) as before:
        flood = []
        for _ in range(600):
            sock = socket.socket()
            flood.append(sock)
            sock.setblocking(False)
            sock.connect_ex(frugal.address)
        began, lines = seconds_of_work(frugal), len(frugal.lines)
        time.sleep(3)
        assert seconds_of_work(frugal) - began < 1
        assert len(frugal.lines) - lines < 10
        before.sendall(health)
        assert before.recv(64).startswith(b"HTTP/1.1 200")
        for sock in flood:
            sock.close()
    limit = time.monotonic() + 30
    while True:
        with suppress(OSError):
            if frugal.ask(health).status == 200:
                break
        assert time.monotonic() < limit
    assert "out of system resource" not in frugal.log
