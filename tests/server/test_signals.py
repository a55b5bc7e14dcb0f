"""The process and its signals: nothing accepted is lost, nothing is left behind."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.model import truth
from tests.support.photos import drawn
from tests.support.server import ROOT, ServerProcess, ask
from tests.support.tiffs import noisy
from tests.support.wire import BOUNDARY, Reply, form, part, request

GOOD = drawn(1)
OK = request("POST", "/embed", GOOD, "Content-Type: image/png")


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_sigterm_under_load_loses_no_accepted_request_and_exits_0(
    run_server: Callable[..., ServerProcess],
) -> None:
    server = run_server("--max-batch-size", 2, "--grace", 15).ready()
    address, expected = server.address, truth(GOOD)
    counts: Counter[str] = Counter()
    stopped = threading.Event()

    def caller() -> None:
        while not stopped.is_set():
            try:
                reply = ask(address, OK)
            except ConnectionRefusedError:
                return
            except OSError:
                # The kernel accepts for a listener that is about to close: such a connection never reached us.
                counts["lost before the end" if server.process.poll() is None else "at the end"] += 1
                return
            if reply.status == 200:
                right = np.allclose(reply.json["embedding"], expected, atol=1e-5)
                counts["right" if right else "wrong"] += 1
            else:
                counts[reply.code] += 1

    callers = [threading.Thread(target=caller) for _ in range(8)]
    for thread in callers:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    status = server.wait()
    stopped.set()
    for thread in callers:
        thread.join(10)
    assert status == 0
    assert time.monotonic() - began < 15
    assert counts["right"] > 0
    assert set(counts) <= {"right", "shutting_down", "at the end", "lost before the end"}
    assert counts["lost before the end"] <= counts["shutting_down"] + 8
    assert "0 requests left unfinished" in server.log


def test_what_six_hundred_had_sent_before_sigterm_has_its_answer(run_server: Callable[..., ServerProcess]) -> None:
    """Into the kernel's buffers, while the process could read nothing."""
    server = run_server("--grace", 20, "--max-connections", 700).ready()
    address, large = server.address, request("POST", "/embed", bytes(60_000), "Content-Type: image/png")
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        server.signal(signal.SIGSTOP)
        callers = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(600)]
        for caller in callers:
            caller.sendall(large)
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGCONT)
        for caller in callers:
            answer = http.client.HTTPResponse(caller)
            try:
                answer.begin()
            except OSError as error:
                counts[type(error).__name__] += 1
            else:
                counts[str(answer.status)] += 1
    assert server.wait() == 0
    assert set(counts) <= {"422", "429", "503"}, counts
    assert counts.total() == 600


def test_a_request_in_work_at_sigterm_is_answered_and_a_stalled_upload_is_cut_at_two_seconds(
    run_server: Callable[..., ServerProcess],
) -> None:
    server = run_server("--grace", 15).ready()
    address = server.address
    with socket.create_connection(address, 20) as stalled, socket.create_connection(address, 20) as slow:
        stalled.sendall(OK[:-20])
        slow.sendall(OK[:-20])
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        server.wait_for("stopping")
        slow.sendall(OK[-20:])
        assert slow.recv(64).startswith(b"HTTP/1.1 200")
        assert stalled.recv(64).startswith(b"HTTP/1.1 408")
        assert server.wait() == 0
        assert 1 < time.monotonic() - began < 8


def test_sigterm_in_the_middle_of_a_stream_delivers_what_came_and_says_that_it_is_not_all(
    run_server: Callable[..., ServerProcess],
) -> None:
    server = run_server("--grace", 15).ready()
    headers = ("Accept: application/x-ndjson", f"Content-Type: multipart/form-data; boundary={BOUNDARY}")
    head = request("POST", "/embed/batch", None, *headers, "Content-Length: 100000000")
    with socket.create_connection(server.address, 20) as sock, ExitStack() as opened:
        sock.sendall(head + form(*[part(GOOD, "images")] * 5, end=b"\r\n"))
        response = opened.enter_context(closing(http.client.HTTPResponse(sock)))
        response.begin()
        lines = [json.loads(response.readline()) for _ in range(5)]
        assert {line["index"] for line in lines} == set(range(5))
        server.signal(signal.SIGTERM)
        server.wait_for("stopping")
        last = json.loads(response.read())
        assert (last["done"], last["count"], last["error"]["code"]) == (False, 5, "shutting_down")
        assert last["error"]["status"] == 503
        assert server.wait() == 0
    assert "0 requests left unfinished" in server.log


def test_a_second_signal_leaves_at_once(run_server: Callable[..., ServerProcess]) -> None:
    server = run_server("--grace", 60).ready()
    with socket.create_connection(server.address, 20) as stalled:
        stalled.sendall(OK[:-20])
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        server.wait_for("stopping")
        time.sleep(1.2)  # by now it is another wish
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        assert server.wait() == -signal.SIGTERM
        assert time.monotonic() - began < 2


def test_kill_9_under_load_damages_nothing_and_the_next_process_serves_on_the_same_port(
    run_server: Callable[..., ServerProcess], tiny_model: Path
) -> None:
    before, expected = snapshot(tiny_model), truth(GOOD)
    server = run_server().ready()
    address = server.address
    for _ in range(2):
        with socket.create_connection(address, 20) as busy:
            busy.sendall(OK)
            server.signal(signal.SIGKILL)
            assert server.wait() == -signal.SIGKILL
        server = run_server("--port", address[1]).ready()
        reply = server.ask(OK)
        assert reply.status == 200
        np.testing.assert_allclose(reply.json["embedding"], expected, atol=1e-5)
    assert snapshot(tiny_model) == before


def test_a_process_stopped_and_continued_goes_on(server: ServerProcess) -> None:
    address = server.address
    server.signal(signal.SIGSTOP)
    try:
        with socket.create_connection(address, 20) as waiting:
            waiting.sendall(OK)
            time.sleep(1)
            server.signal(signal.SIGCONT)
            assert waiting.recv(64).startswith(b"HTTP/1.1 200")
    finally:
        server.signal(signal.SIGCONT)
    reply = server.ask(OK)
    assert reply.status == 200
    np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-5)


def test_a_log_that_nobody_reads_does_not_stop_the_server(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = ["--model", "tiny", "--models-dir", str(models_dir), "--device", "cpu", "--port", str(port)]
    command = [sys.executable, "-X", "faulthandler", "-m", "clipsrv", *flags]
    # Python's own stderr has a buffer, and a lock that a stuck writer holds, unless this is set.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    try:
        address = ("127.0.0.1", port)
        for _ in range(300):  # until it is ready; each answer is also a line that fills the pipe
            try:
                if ask(address, request("GET", "/health", None)).status == 200:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        with socket.create_connection(address, 20) as sock:
            sock.settimeout(20)
            for _ in range(60):  # pipelined: 30 lines at a time
                sock.sendall(request("GET", "/health", None) * 20)
                received = b""
                while received.count(b"HTTP/1.1 200") < 20:
                    received += sock.recv(65536)
        for _ in range(10):  # libtiff itself complains of each
            assert ask(address, request("POST", "/embed", noisy(), "Content-Type: image/tiff")).status == 422
        assert ask(address, OK).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.send_signal(signal.SIGABRT)  # one that is still there says in its last words where it hangs
        said = process.communicate()[1].decode().splitlines()
        print("\n".join(line for line in said if " INFO request " not in line))


#: A server whose second model is loaded once there is a file, which is named beside it.
TWO_MODELS = """
import asyncio, os, sys, time
from pathlib import Path
from clipsrv.config import Config
from clipsrv.server.lifecycle import serve
from clipsrv.server.logs import set_up
from tests.support.library import Given
from tests.support.model import make_model

def load(name):
    while name == "second" and not Path(sys.argv[1]).exists():
        print("still loading", file=sys.stderr, flush=True)
        time.sleep(0.02)
    return make_model()

set_up("info", "text")
config = Config(model="tiny", models_dir="nowhere", port=0, grace=float(sys.argv[2]))
asyncio.run(serve(config, Given(load, others=["second"])))
os._exit(0)
"""


@pytest.mark.parametrize(("comes", "grace", "answer"), [(True, 60, "200"), (False, 1.5, "503 shutting_down")])
def test_a_signal_while_a_second_model_loads_lets_it_be_loaded_within_the_grace_time(
    tmp_path: Path, comes: bool, grace: float, answer: str
) -> None:
    server = ServerProcess(tmp_path / "it may", grace, command=(sys.executable, "-c", TWO_MODELS))
    try:
        address = server.ready().address
        second = request("POST", "/embed?model=second", GOOD, "Content-Type: image/png")
        replies = list[Reply]()
        asking = threading.Thread(target=lambda: replies.append(ask(address, second, 60)))
        asking.start()
        server.wait_for("still loading")
        server.signal(signal.SIGTERM)
        server.wait_for("stopping: finishing 1 requests")
        if comes:
            (tmp_path / "it may").touch()
        assert server.wait() == 0
        asking.join(30)
        (reply,) = replies
        assert answer == ("200" if reply.status == 200 else f"{reply.status} {reply.code}")
    finally:
        server.close()
