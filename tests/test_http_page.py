"""docs/http.md and the first lines of the README are true: each piece runs in the clone, on the demo model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[1]
PIECES = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "http.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
COMMANDS = {
    "bash": ("bash", "-euc"),
    "python": (sys.executable, "-W", "error", "-c"),
    "js": ("node", "--no-warnings", "--input-type=module", "--eval"),
    "ts": ("node_modules/.bin/tsx", "--input-type=module", "--eval"),
}
#: What each prints.
PRINTED = (
    r'(\{"embedding":\[.*\}){2}\{"embeddings":\[.*"errors":\[\].*\}\{"embeddings":.*\}\{"labels":\[\{"label":"red .*\}'
    r'\{"embedding":\[.*\}',
    r"3\n",
    r'(\{"index":\d,.*\}\n){3}\{"done":true,"count":3,"failed":1,"dimensions":192,"model":"demo"\}\n',
    r"100 0\n",
    r"2 red heart\n",
    r"\(2, 192\) float32\n",
    r"2 192\n",
    r"2 red heart\n",
    r"2 star\n",
)


def run(kind: str, code: str, server: ServerProcess) -> str:
    code = code.replace("http://localhost:5000", server.url)
    done = subprocess.run([*COMMANDS[kind], code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("kind", "code", "printed"),
    [(*piece, said) for piece, said in zip(PIECES, PRINTED, strict=True)],
    ids=[f"{kind}-{number}" for number, (kind, _) in enumerate(PIECES)],
)
def test_a_piece_runs_and_prints_what_it_should(
    kind: str, code: str, printed: str, demo_server: ServerProcess, request: pytest.FixtureRequest
) -> None:
    if kind == "ts":
        request.getfixturevalue("npm")
    said = run(kind, code, demo_server)
    assert re.fullmatch(printed, said, re.DOTALL), said


@pytest.mark.parametrize("page", ["README.md", "README.ja.md", "docs/search.md", "docs/search.ja.md"])
def test_the_first_search_finds_what_the_page_shows(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(
        r"(clipsrv embed examples .*\nclipsrv search .*\n)```\n\n```(?:text)?\n(.*?)^```", text, re.M | re.S
    )
    assert found is not None
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = found[1].replace("clipsrv ", f"{sys.executable} -m clipsrv ")
    done = subprocess.run(["bash", "-euc", commands], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, found[2]), done.stderr


def test_classify_answers_what_its_page_shows(demo_server: ServerProcess) -> None:
    text = (ROOT / "docs" / "classify.md").read_text(encoding="utf-8")
    command, shown = re.findall(r"^```(?:bash|json)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:2]
    answer, expected = json.loads(run("bash", f"{command.rstrip()} -s", demo_server)), json.loads(shown)
    for found, wanted in zip(answer.pop("labels"), expected.pop("labels"), strict=True):
        assert found == {
            "label": wanted["label"],
            "score": pytest.approx(wanted["score"], rel=1e-2),
            "similarity": pytest.approx(wanted["similarity"], abs=1e-4),
        }
    assert answer == expected


def in_short(answer: dict[str, Any]) -> dict[str, Any]:
    """As the README shows it: the first three numbers of the vector, to four places."""
    return {**answer, "embedding": [*(round(x, 4) for x in answer["embedding"][:3]), "..."]}


@pytest.mark.parametrize("page", ["README.md", "README.ja.md"])
def test_the_first_lines_of_the_readme_answer_what_it_shows(page: str, demo_server: ServerProcess) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^curl .*localhost:5000.*$", text, re.MULTILINE)
    (shown,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = "".join(f"{line.replace('curl', 'curl -sS --fail', 1)}; echo\n" for line in lines)
    answers = [json.loads(line) for line in run("bash", code, demo_server).splitlines()]
    assert len(answers) == 7
    assert in_short(answers[1]) == json.loads(shown), f"the page should show {json.dumps(in_short(answers[1]))}"
    assert answers[6]["results"][0]["id"] == "examples/red-heart.png"
    assert answers[4]["labels"][0]["label"] == {"README.md": "red heart", "README.ja.md": "赤いハート"}[page]
