"""The process and its signals: nothing accepted is lost, nothing is left behind, and no attack on it outlives it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipsrv.models.model import Model
from tests.support.model import truth
from tests.support.photos import drawn
from tests.support.server import ROOT, ServerProcess, ask
from tests.support.wire import request

GOOD = drawn(1)
OK = request("POST", "/embed", GOOD, "Content-Type: image/png")


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_sigterm_under_load_loses_no_accepted_request_and_exits_0(
    run_server: Callable[..., ServerProcess], model: Model
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
    run_server: Callable[..., ServerProcess], tiny_model: Path, model: Model
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


def test_a_process_stopped_and_continued_goes_on(server: ServerProcess, model: Model) -> None:
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


def test_a_model_file_deleted_or_cut_while_serving_changes_nothing(
    models_dir: Path, tmp_path: Path, model: Model
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models_dir, folder)
    server = ServerProcess("--model", "tiny", "--models-dir", folder, "--device", "cpu", "--port", 0)
    try:
        server.ready()
        for path in (folder / "tiny").iterdir():
            path.write_bytes(b"")
        (folder / "tiny" / "vision.fp32.onnx").unlink()
        reply = server.ask(OK)
        assert reply.status == 200
        np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-5)
    finally:
        server.close()


def test_a_model_folder_that_may_only_be_read_is_enough(models_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models_dir, tmp_path / "models")
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    # Modes bind root as well once it may not override them.
    bound = ("setpriv", "--bounding-set=-dac_override") if os.getuid() == 0 else ()
    command = (*bound, sys.executable, "-m", "clipsrv")
    home = {"HOME": str(folder)}
    server = ServerProcess(
        "--model", "tiny", "--models-dir", folder, "--device", "cpu", "--port", 0, env=home, command=command
    )
    try:
        tried = subprocess.run([*bound, "touch", folder / "new"], capture_output=True)
        assert tried.returncode == 1, "or else this proves nothing"
        reply = server.ready().ask(OK)
        assert reply.status == 200
        np.testing.assert_allclose(reply.json["embedding"], truth(GOOD), atol=1e-5)
    finally:
        server.close()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


#: Prints every attempt to reach out, to start a process, or to write a file; a file size limit of 0 makes sure.
_WATCHED = """
import logging, resource, socket, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
serving = False
def watch(event, args):
    if event in {"socket.connect", "socket.sendto", "subprocess.Popen", "os.exec", "os.fork", "os.system"}:
        print("SEEN", event, args, file=sys.stderr, flush=True)
    if serving and event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        print("SEEN", event, args, file=sys.stderr, flush=True)
sys.addaudithook(watch)
class Ready(logging.Filter):
    def filter(self, record):
        global serving
        serving = serving or record.getMessage().startswith("ready:")
        return True
logging.getLogger("clipsrv").addFilter(Ready())
from clipsrv.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_server_connects_to_nothing_starts_nothing_and_writes_nothing(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = ["--model", "tiny", "--models-dir", str(models_dir), "--device", "cpu", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", _WATCHED, *flags], cwd=ROOT, env={"PATH": "/usr/bin"}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "ready:" in line:
                break
        address = ("127.0.0.1", port)
        for body in (
            b'{"image": "http://127.0.0.1:1/x.png"}',
            b'{"image": "file:///etc/passwd"}',
            b'{"url": "http://127.0.0.1:1/"}',
            b'{"image": {"url": "http://127.0.0.1:1/"}}',
        ):
            reply = ask(address, request("POST", "/embed", body, "Content-Type: application/json"))
            assert reply.status == 400
        assert ask(address, request("POST", "/embed", b"http://127.0.0.1:1/", "Content-Type: image/png")).status == 422
        assert ask(address, request("POST", "/embed", b"%!PS-Adobe", "Content-Type: image/png")).status == 422
        assert ask(address, OK).status == 200
        assert ask(address, request("GET", "/metrics", None)).status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        lines += process.stderr.readlines()
        process.wait(20)
        process.stderr.close()
    assert process.returncode == 0
    assert [line for line in lines if "SEEN" in line] == []


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
        assert ask(address, OK).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.send_signal(signal.SIGABRT)  # one that is still there says in its last words where it hangs
        said = process.communicate()[1].decode().splitlines()
        print("\n".join(line for line in said if " INFO request " not in line))


@pytest.mark.parametrize("program", ["clipsrv", "conversions"])
def test_onnxruntime_reports_to_nobody(program: str, tiny_model: Path, tmp_path: Path) -> None:
    """Its telemetry is native code, unseen by Python; an id and a queue in the home folder would give it away."""
    arguments = {
        "clipsrv": ["doctor", "--model", "tiny", "--models-dir", str(tiny_model.parent)],
        "conversions": ["--verify", str(tiny_model)],
    }[program]
    environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "ORT_DISABLE_TELEMETRY": "0"}
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)] == []
