"""docs/clients.md tells of the versions that scripts/try-clients installs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from drills.clients.asking import CLIENTS

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
