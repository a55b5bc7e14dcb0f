"""docs/python.md is true: every piece of Python on it runs, in a process of its own and another folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
#: How what each prints ends.
PRINTED = (
    r"\[\[.*\]\]\n",
    r"\w{16} 192 cpu fp32\nred heart 1\.0\n",
    *(rf"examples/{name}\.png\n" for name in ("red-heart", "star", "envelope", "star")),
)
#: faiss, as SWIG makes it for Python 3.12 and newer.
WARNINGS = ("-W", "error", "-W", "ignore:builtin type :DeprecationWarning")


@pytest.mark.parametrize(("snippet", "printed"), list(zip(SNIPPETS, PRINTED, strict=True)), ids=range(len(PRINTED)))
def test_a_snippet_runs_and_prints_what_it_should(
    snippet: str, printed: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database = request.getfixturevalue("postgres").url if "psycopg" in snippet else ""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = [sys.executable, *WARNINGS, "-c", snippet]
    environment = {**os.environ, "DATABASE_URL": database}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(printed, done.stdout, re.DOTALL), done.stdout
