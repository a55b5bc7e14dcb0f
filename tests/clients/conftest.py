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
def run_suite(npm: str, models_dir: Path) -> Callable[..., None]:
    """run_suite(workspace, **env): checks one package and runs its tests against this checkout's server."""
    common = os.environ | {
        "CLIPSRV_TEST_PYTHON": sys.executable,
        "CLIPSRV_TEST_MODEL": NAME,
        "CLIPSRV_TEST_FSYNC": "off",
        "CLIPSRV_MODELS_DIR": str(models_dir),
    }

    def run(workspace: str, **env: str) -> None:
        folder = ROOT / workspace
        said([npm, "run", "check"], folder, common)
        files = sorted(folder.glob("test/*.test.ts"), key=lambda path: -path.stat().st_size)
        assert files
        with ThreadPoolExecutor(AT_ONCE) as threads:
            # Without `--test` there is no second process of Node that only waits for the first.
            commands = (["node", "--import", "tsx", str(path.relative_to(folder))] for path in files)
            for output in threads.map(lambda command: said(command, folder, common | env), commands):
                assert int(re.findall(r"^\S pass (\d+)$", output, re.MULTILINE)[-1]) > 0, output[-2_000:]

    return run


def said(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command prints; fails with it if its exit status is not 0, or after ten minutes."""
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
    return ran.stdout
