"""Runs the tests of the TypeScript client and of the catalogue job, against this checkout's server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipsrv import errors
from clipsrv.server import errors as server_errors
from tests.parts.model import NAME

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def npm() -> str:
    """The npm command, with the packages of package-lock.json installed."""
    command = shutil.which("npm")
    assert command is not None, "these tests need Node.js 20 or newer with npm on the PATH"
    lock = (ROOT / "package-lock.json").read_bytes()
    stamp = ROOT / "node_modules" / ".installed-from"
    if not stamp.exists() or stamp.read_bytes() != lock:
        subprocess.run([command, "ci", "--no-audit", "--no-fund"], cwd=ROOT, check=True)
        stamp.write_bytes(lock)
    subprocess.run([command, "run", "build"], cwd=ROOT, check=True)
    return command


@pytest.mark.timeout(900)
@pytest.mark.parametrize("workspace", ["clients/typescript", "clients/catalogue"])
def test_the_node_suite_passes_against_the_real_server(npm: str, models_dir: Path, workspace: str) -> None:
    environment = os.environ | {
        "CLIPSRV_TEST_PYTHON": sys.executable,
        "CLIPSRV_TEST_MODEL": NAME,
        "CLIPSRV_MODELS_DIR": str(models_dir),
    }
    ran = subprocess.run(
        [npm, "test", "--workspace", workspace], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
    assert int(re.findall(r"^\S pass (\d+)$", ran.stdout, re.MULTILINE)[-1]) > 0, ran.stdout[-2_000:]


def test_the_client_knows_every_error_code_of_the_server() -> None:
    source = (ROOT / "clients/typescript/src/errors.ts").read_text(encoding="utf-8")
    listed = re.search(r"ERROR_CODES = \[(.*?)\]", source, re.DOTALL)
    assert listed is not None
    known = set(re.findall(r"'(\w+)'", listed[1]))
    assert _request_codes() - known == set()


def _request_codes() -> set[str]:
    """Codes of every failure that can reach a client; StartError ends the process before there is one."""
    codes, waiting = {code for code, _ in server_errors._HTTP_ERRORS.values()}, [errors.ClipsrvError]
    while waiting:
        kind = waiting.pop()
        if not issubclass(kind, errors.StartError):
            codes.add(kind.code)
            waiting += kind.__subclasses__()
    return codes
