"""A tiny CLIP checkpoint made by the committed script, and the converter as users run it: its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pytorch import one_thread

__all__ = ["one_thread"]

ROOT = Path(__file__).parents[2]
MAKE_CHECKPOINT = ROOT / "scripts" / "make-random-checkpoint"

#: arguments, further environment -> the finished process
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "conversions", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """Without the network: nothing in the tests may reach the real Hub. With one thread of PyTorch: `one_thread`."""
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "2"}
    return {**os.environ, "OMP_NUM_THREADS": "1", **offline, **changes}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_converter(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        changes = {"HF_HOME": str(tmp_path / "hf"), **changes}
        return subprocess.run(
            command(*arguments), cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=110
        )

    return run_converter
