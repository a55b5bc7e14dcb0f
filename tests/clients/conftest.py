"""npm for the tests of the Node packages, and how their suites are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.model import NAME

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_suite(npm: str, models_dir: Path) -> Callable[[str], None]:
    """Runs the tests of one package against this checkout's server; fails with their output."""

    def run(workspace: str) -> None:
        environment = os.environ | {
            "CLIPSRV_TEST_PYTHON": sys.executable,
            "CLIPSRV_TEST_MODEL": NAME,
            "CLIPSRV_MODELS_DIR": str(models_dir),
        }
        command = [npm, "test", "--workspace", workspace]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
        assert int(re.findall(r"^\S pass (\d+)$", ran.stdout, re.MULTILINE)[-1]) > 0, ran.stdout[-2_000:]

    return run
