"""What the process touches: no network, no other program, no file; and what is done to its files does not touch it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
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
