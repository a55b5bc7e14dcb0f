"""Sends prepared requests with wrk, a compiled load generator (Debian's package of that name), where it is installed.

Each of wrk's threads is one caller, so that a latency is that of one connection's request.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import cpu_seconds
from benchmarks.window import Outcome, Window

_SCRIPT = Path(__file__).with_suffix(".lua")
_ANSWER = re.compile(r"answer (?P<came>\S+) (?P<latency>\S+) (?P<status>\d+) (?P<text>.*)")


def find_wrk() -> str | None:
    """The program's path, if it is installed."""
    return shutil.which("wrk")


class Wrk:
    """As generator.Generator: `callers` connections, each with one request on the way at any time."""

    def __init__(self, program: str, address: tuple[str, int], requests: list[bytes], callers: int) -> None:
        self._program, self._address, self._requests, self._callers = program, address, requests, callers

    def run(self, warm_up: float, seconds: float, at_edge: Callable[[], None] = lambda: None) -> Outcome:
        """Drives the server for a window of `seconds` after `warm_up` seconds: see Window.

        Raises ConnectionError if wrk ends by itself.
        """
        with tempfile.TemporaryDirectory(prefix="clipsrv-bench-") as folder:
            for number, request in enumerate(self._requests):
                Path(folder, str(number)).write_bytes(request)
            command, pipe = self._command(folder), subprocess.PIPE
            with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
                window = Window(
                    *(self._callers, warm_up, seconds, at_edge),
                    generator_cpu=lambda: time.process_time() + cpu_seconds(process.pid),
                )
                try:
                    return self._watch(process, window)
                finally:
                    process.kill()

    def _watch(self, process: subprocess.Popen[str], window: Window) -> Outcome:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            answer = _ANSWER.match(line)
            if answer is None:
                said.append(line.strip())
                continue
            error = None if answer["status"] == "200" else f"{answer['status']} {answer['text']}"
            if window.add(float(answer["latency"]), error, float(answer["came"])):
                return window.outcome
        raise ConnectionError(f"wrk ended: {' '.join(said)[-500:]}")

    def _command(self, folder: str) -> list[str]:
        # An hour is never reached: the window decides when to stop.
        options = ("--threads", str(self._callers), "--connections", str(self._callers), "--duration", "1h")
        url = "http://{}:{}/".format(*self._address)
        arguments = (folder, str(len(self._requests)), str(self._callers))
        return [self._program, *options, "--timeout", "10m", "--script", str(_SCRIPT), url, "--", *arguments]
