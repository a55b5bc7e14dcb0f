"""The Node packages of package-lock.json, installed and built once however many processes of tests ask."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


def installed() -> str:
    """The npm command, with the packages of package-lock.json installed and both of ours built."""
    command = shutil.which("npm")
    assert command is not None, "these tests need Node.js 20 or newer with npm on the PATH"
    lock = (ROOT / "package-lock.json").read_bytes()
    stamp = ROOT / "node_modules" / ".installed-from"
    with FileLock(ROOT / ".pytest_cache" / "npm.lock"):
        if not stamp.exists() or stamp.read_bytes() != lock:
            subprocess.run([command, "ci", "--no-audit", "--no-fund"], cwd=ROOT, check=True)
            stamp.write_bytes(lock)
        subprocess.run([command, "run", "build"], cwd=ROOT, check=True)
    return command
