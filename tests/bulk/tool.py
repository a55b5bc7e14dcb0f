"""The embed command as a process of its own, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.runtime.vectors import Vectors

ROOT = Path(__file__).parents[2]
#: Many shards, and so many moments to be killed between.
SMALL = ("--shard-size", 8)
#: A job in shards of eight stretches.
SHARDS = (*SMALL, "--rows-per-shard", 64)


class Embed:
    """`python -m clipsrv embed`, or another `command` of the same kind, with the small model."""

    def __init__(self, models_dir: Path, command: str = "embed") -> None:
        self._command = command
        self._common = ("--model", "tiny", "--models-dir", models_dir, "--device", "cpu", "--threads", 1)

    def __call__(
        self, *args: object, status: int = 0, stdin: bytes = b"", before: Callable[[], None] | None = None
    ) -> str:
        """Runs to the end, checks the exit status and gives stderr. `before` runs in the process before the command."""
        done = subprocess.run(
            self._argv(args), cwd=ROOT, env=_environment(), input=stdin, capture_output=True, preexec_fn=before
        )
        said = done.stderr.decode()
        assert done.returncode == status, said
        assert "Traceback" not in said
        assert not done.stdout
        return said

    def start(self, *args: object, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        """Starts it and returns."""
        return subprocess.Popen(
            self._argv(args),
            cwd=ROOT,
            env=_environment(),
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
        )

    def _argv(self, args: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-m", "clipsrv", self._command, *map(str, (*self._common, *args))]


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CLIPSRV_")}


def vectors(out: Path) -> Vectors:
    found: NDArray[np.float32] = np.load(out)
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def ids(out: Path) -> list[str]:
    return [line["id"] for line in lines(out.with_name(out.name + ".ids.jsonl"))]


def shards(out: Path) -> int:
    """How many shards are whole."""
    return len(list(out.with_name(out.name + ".parts").glob("[0-9]*.jsonl")))


def marks(work: Path) -> int:
    """How many shards of a job are done."""
    return len(list((work / "done").glob("*.json")))


def same(out: Path, whole: Path) -> bool:
    """Whether two outputs are the same to the byte."""
    names = sorted(path.name for path in whole.glob("*.parquet"))
    assert sorted(path.name for path in out.iterdir() if path.name != "_clipsrv.json") == names
    return all((out / name).read_bytes() == (whole / name).read_bytes() for name in names)


def wait_until(condition: Callable[[], bool], seconds: float = 110.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to pass in time"
        time.sleep(0.002)


def finish(process: subprocess.Popen[str], seconds: float = 110.0) -> tuple[int, str]:
    """Exit status and stderr."""
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said
