"""How long until the server is of use: process start to `healthy`, and how long importing for --help takes."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.servers import Rival, Server


def seconds_to_healthy(rival: Rival, cores: Sequence[int], log: Path, times: int) -> float:
    """Median seconds from starting the process to the first 200 of /health."""
    taken = []
    for _ in range(times):
        server = Server(rival, cores, log)
        taken.append(server.seconds_to_healthy)
        server.stop()
    return statistics.median(taken)


def import_seconds(python: str, times: int) -> float:
    """Median seconds that `python -X importtime -m clipsrv --help` spends importing, the interpreter's own included."""
    taken = []
    for _ in range(times):
        done = subprocess.run(
            [python, "-X", "importtime", "-m", "clipsrv", "--help"], capture_output=True, text=True, check=True
        )
        own = re.findall(r"^import time:\s+(\d+) \|", done.stderr, re.MULTILINE)
        taken.append(sum(map(int, own)) / 1e6)
    return statistics.median(taken)
