"""docs/clients.md tells of the versions that scripts/try-clients installs, and its first piece runs in the clone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from drills.clients.asking import CLIENTS
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")


def test_every_client_is_on_the_page_with_the_version_that_is_installed() -> None:
    own = ROOT / "drills" / "clients"
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (own / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    locked = json.loads((own / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    listed = dict(re.findall(r"^\| (.+ \((?:Python|Node)\)) \| (\S+) \|", PAGE, re.MULTILINE))
    wanted = {f"{name} (Python)": pinned[package] for name, package, _ in CLIENTS}
    packages = {"openai": "openai", "@langchain/openai": "@langchain/openai", "AI SDK": "@ai-sdk/openai-compatible"}
    wanted |= {f"{name} (Node)": locked[f"node_modules/{package}"]["version"] for name, package in packages.items()}
    assert listed == wanted


def test_the_first_piece_of_python_gets_a_vector_of_a_text_and_one_of_an_image(demo_server: ServerProcess) -> None:
    found = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    code = found[1].replace("http://localhost:5000", demo_server.url) + "print(len(text), len(image))\n"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "192 192\n", "")
