"""What native libraries write to descriptor 2 by themselves stops nothing and is no line of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bulk.tool import Embed
from tests.support.photos import drawn
from tests.support.server import ServerProcess
from tests.support.tiffs import noisy
from tests.support.wire import request

_NATIVE = """
import ctypes, sys, time
from clipsrv.stderr import set_apart
set_apart()
libc = ctypes.CDLL(None)
for _ in range(3000):  # three times what a pipe holds
    libc.write(2, b"x" * 63 + bytes([10]), 64)
print("ours", file=sys.stderr)
"""


def test_a_library_that_writes_without_end_neither_waits_nor_is_heard() -> None:
    done = subprocess.run([sys.executable, "-c", _NATIVE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "ours\n")


def test_a_process_that_crashes_still_says_where_if_it_was_asked_to() -> None:
    program = "from clipsrv.stderr import set_apart\nset_apart()\nimport os\nos.abort()"
    command = [sys.executable, "-X", "faulthandler", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Fatal Python error: Aborted" in done.stderr


def test_a_library_is_quoted_in_the_log_and_every_line_is_json(run_server: Callable[..., ServerProcess]) -> None:
    server = run_server("--log-format", "json").ready()
    for _ in range(5):
        assert server.ask(request("POST", "/embed", noisy(), "Content-Type: image/tiff")).status == 422
    server.wait_for("a library wrote to stderr: ")
    assert all(json.loads(line)["level"] for line in server.log.splitlines())


def test_the_job_says_nothing_that_is_not_its_own(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.tif").write_bytes(noisy())
    (tmp_path / "whole.png").write_bytes(drawn(1))
    assert not Embed(models_dir)("--quiet", "--out", tmp_path / "a.npy", tmp_path / "noisy.tif", tmp_path / "whole.png")
