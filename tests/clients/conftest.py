"""npm for the tests of the Node packages, and how their suites are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.model import NAME

ROOT = Path(__file__).resolve().parents[2]
#: Files at once, as `node --test` itself does on a machine of more cores: they wait for servers most of their time.
AT_ONCE = 3


@pytest.fixture
def run_suite(npm: str, models_dir: Path) -> Callable[[str], None]:
    """Checks one package and runs its tests against this checkout's server; fails with their output."""
    environment = os.environ | {
        "CLIPSRV_TEST_PYTHON": sys.executable,
        "CLIPSRV_TEST_MODEL": NAME,
        "CLIPSRV_MODELS_DIR": str(models_dir),
    }

    def said(command: list[str], folder: Path) -> str:
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
        return ran.stdout

    def run(workspace: str) -> None:
        folder = ROOT / workspace
        said([npm, "run", "check"], folder)
        files = sorted(folder.glob("test/*.test.ts"), key=lambda path: -path.stat().st_size)
        assert files
        node = ["node", "--import", "tsx", "--test", "--test-timeout=300000"]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for output in threads.map(lambda path: said([*node, str(path.relative_to(folder))], folder), files):
                assert int(re.findall(r"^\S pass (\d+)$", output, re.MULTILINE)[-1]) > 0, output[-2_000:]

    return run
