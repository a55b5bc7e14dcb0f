"""Both load generators on a real socket: every request arrives whole, in turn, and every answer is counted."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.generator import Generator
from benchmarks.wrk import Wrk

REQUESTS = [f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".encode() for number in range(5)]

#: Sends the files it is given as benchmarks/wrk.lua does, and writes the same lines, without LuaJIT.
STAND_IN = f"""#!{sys.executable}
import http.client, itertools, sys, time
from pathlib import Path
url, folder, count = sys.argv[-5], sys.argv[-3], int(sys.argv[-2])
assert sys.argv[-4] == "--" and Path(sys.argv[sys.argv.index("--script") + 1]).is_file()
print("Running 60m test", flush=True)
for number in itertools.cycle(range(count)):
    head, _, body = Path(folder, str(number)).read_bytes().partition(b"\\r\\n\\r\\n")
    method, path, _ = head.decode().split("\\r\\n")[0].split()
    began = time.monotonic()
    connection = http.client.HTTPConnection(url.split("/")[2])
    connection.request(method, path, body)
    answer = connection.getresponse()
    text = answer.read().decode() if answer.status != 200 else ""
    came = time.monotonic()
    print(f"answer {{came:.6f}} {{came - began:.6f}} {{answer.status}} {{text}}", flush=True)
"""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seen: Counter[str] = Counter()
        self.refuse = False

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_port)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen[f"{self.path} {body.decode()}"] += 1
        self.send_response(429 if self.server.refuse else 200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"full")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=["own", "wrk"])
def generator(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Generator | Wrk:
    if request.param == "own":
        return Generator(server.address, REQUESTS, 2)
    program = tmp_path / "wrk"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    return Wrk(str(program), server.address, REQUESTS, 1)


def test_requests_are_sent_in_turn_and_answers_timed(generator: Generator | Wrk, server: Server) -> None:
    edges: list[int] = []
    outcome = generator.run(0.1, 0.4, lambda: edges.append(sum(server.seen.values())))
    assert set(server.seen) == {f"/{number} hello" for number in range(5)}
    assert max(server.seen.values()) - min(server.seen.values()) <= 2
    assert outcome.errors == 0
    assert all(0 < latency < 1 for latency in outcome.latencies)
    first, last = edges
    assert 3 <= len(outcome.latencies) <= last
    if isinstance(generator, Generator):
        # wrk goes on while what it wrote is read, as far ahead as the machine is busy; here one request a caller.
        assert abs(len(outcome.latencies) - (last - first)) <= 2


def test_refusals_are_errors_with_what_was_said(generator: Generator | Wrk, server: Server) -> None:
    server.refuse = True
    outcome = generator.run(0, 0.2)
    assert outcome.latencies == []
    assert outcome.errors > 3
    assert "429" in outcome.first_error
    assert "full" in outcome.first_error


def test_a_generator_that_ends_by_itself_says_why(tmp_path: Path, server: Server) -> None:
    program = tmp_path / "wrk"
    program.write_text("#!/bin/sh\necho unable to connect\n")
    os.chmod(program, 0o755)
    with pytest.raises(ConnectionError, match="unable to connect"):
        Wrk(str(program), server.address, REQUESTS, 1).run(0, 1)
