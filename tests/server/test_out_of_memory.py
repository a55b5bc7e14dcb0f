"""A process whose memory has run out tells those who asked, and serves the next one as before."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipsrv.images.decode import BLOCK_BYTES, BLOCKS_PER_THREAD
from clipsrv.server.allowance import addresses_left, check_room
from tests.support.model import truth
from tests.support.photos import drawn
from tests.support.server import ServerProcess
from tests.support.wire import BOUNDARY, form, part, request

MIB = 2**20
GOOD = drawn(1)
LARGE = drawn(1, size=(6900, 6900), form="JPEG")
IMAGE = "Content-Type: image/png"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
JUNK = np.random.default_rng(0).bytes(19 * MIB)
#: Together more than the process may have: bodies, forms of bodies, images that take much more than their bytes.
FLOOD = [
    request("POST", "/embed", JUNK, IMAGE),
    request("POST", "/embed/batch", form(*[part(JUNK, "images")] * 5), FORM),
    request("POST", "/embed", LARGE, IMAGE),
    request("POST", "/embed/batch", form(*[part(LARGE, "images")] * 8), FORM),
]

#: The limit of `ulimit -v` is known when the process starts, as where it is set in earnest.
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))
from clipsrv.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def poor(models_dir: Path) -> Callable[..., ServerProcess]:
    """A server that may have so many bytes more than it has when it is ready."""

    def start(more: int) -> ServerProcess:
        flags = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--port", 0, "--decode-threads", 2)
        server = ServerProcess(*flags, command=[sys.executable, "-c", PROGRAM]).ready()
        pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        return server

    return start


def flood(server: ServerProcess, times: int) -> Counter[tuple[int, str]]:
    """The answers to everything at once; who still sent when he was refused may find his connection closed."""
    found: Counter[tuple[int, str]] = Counter()

    def ask(data: bytes) -> None:
        try:
            reply = server.ask(data, 60)
        except (ConnectionResetError, BrokenPipeError):
            found[0, "closed"] += 1
        else:
            found[reply.status, "" if reply.status == 200 else reply.code] += 1

    threads = [threading.Thread(target=ask, args=(data,)) for _ in range(times) for data in FLOOD]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_memory_that_runs_out_is_503_and_the_next_request_is_served(poor: Callable[..., ServerProcess]) -> None:
    server = poor(250 * MIB)
    try:
        for _ in range(2):
            found = flood(server, 5)
            assert found[503, "out_of_memory"] > 0
            assert {status for status, _ in found} <= {0, 200, 422, 429, 503, 504}, found
            assert server.process.poll() is None
            for blob in (GOOD, LARGE):
                reply = server.ask(request("POST", "/embed", blob, IMAGE), 60)
                assert reply.status == 200
                np.testing.assert_allclose(reply.json["embedding"], truth(blob), atol=1e-5)
            assert server.ask(request("GET", "/health", None)).status == 200
    finally:
        server.close()
    assert "Traceback" not in server.log


def test_where_next_to_nothing_is_left_a_small_request_is_still_served(poor: Callable[..., ServerProcess]) -> None:
    server = poor(30 * MIB)
    try:
        assert server.ask(request("POST", "/embed", LARGE, IMAGE), 60).code == "out_of_memory"
        assert server.ask(FLOOD[0], 60).code == "out_of_memory"
        for _ in range(20):
            assert server.ask(request("POST", "/embed", GOOD, IMAGE)).status == 200
    finally:
        server.close()


def test_after_large_images_an_idle_server_keeps_no_more_than_it_says(run_server: Callable[..., ServerProcess]) -> None:
    server = run_server("--decode-threads", 2).ready()
    assert server.ask(request("POST", "/embed", GOOD, IMAGE)).status == 200
    before = resident(server)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(server.ask, [request("POST", "/embed", LARGE, IMAGE)] * 10, [60] * 10))
    assert {reply.status for reply in replies} == {200}
    blocks = 2 * BLOCKS_PER_THREAD * BLOCK_BYTES
    limit = time.monotonic() + 30
    while resident(server) - before > blocks + 48 * MIB:
        assert time.monotonic() < limit, resident(server) - before
        time.sleep(0.1)


def resident(server: ServerProcess) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_room_that_is_not_there_is_no_memory_and_room_that_is_there_is_not_taken() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    check_room(2**32)
    assert int(Path("/proc/self/statm").read_text().split()[0]) - pages < 2**18
    with pytest.raises(MemoryError):
        check_room(2**60)
    assert addresses_left() is None or addresses_left() > 0  # type: ignore[operator]
