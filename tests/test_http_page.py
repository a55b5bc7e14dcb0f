"""docs/http.md is true: every piece on it runs against a real server, in a folder that holds two images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.photos import drawn
from tests.support.server import ServerProcess

PAGE = (Path(__file__).parents[1] / "docs" / "http.md").read_text(encoding="utf-8")
PIECES = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = {
    "bash": ("bash", "-euc"),
    "python": (sys.executable, "-W", "error", "-c"),
    "js": ("node", "--no-warnings", "--input-type=module", "--eval"),
}
#: What each prints.
PRINTED = (
    r'(\{"embedding":\[.*\}){2}\{"embeddings":\[.*"errors":\[\].*\}\{"embeddings":.*\}\{"labels":\[\{"label":"a .*\}'
    r'\{"embedding":\[.*\}',
    r"3\n",
    r"2 a (cat|dog)\n",
    r"\(2, 64\) float32\n",
    r"2 true\n",
)


@pytest.mark.parametrize(
    ("kind", "code", "printed"), [(*piece, said) for piece, said in zip(PIECES, PRINTED, strict=True)]
)
def test_a_piece_runs_and_prints_what_it_should(
    kind: str, code: str, printed: str, server: ServerProcess, tmp_path: Path
) -> None:
    for seed, name in enumerate(("photo.png", "other.png")):
        (tmp_path / name).write_bytes(drawn(seed))
    code = code.replace("http://localhost:5000", server.url)
    done = subprocess.run([*COMMANDS[kind], code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(printed, done.stdout, re.DOTALL), done.stdout
