"""There is one version: that of clipsrv/__init__.py, and of every package beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import clipsrv

ROOT = Path(__file__).parents[1]
PACKAGES = ("package.json", "clients/typescript/package.json", "clients/catalogue/package.json")


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_of_node_has_the_version_of_the_server_and_asks_for_no_other(name: str) -> None:
    package = read(name)
    asked = [version for other, version in package.get("dependencies", {}).items() if other.startswith("clipsrv")]
    assert {package["version"], *asked} == {clipsrv.__version__}


def test_the_lock_has_the_same_version() -> None:
    locked = read("package-lock.json")
    ours = [locked["packages"][name.removesuffix("package.json").rstrip("/")]["version"] for name in PACKAGES]
    assert {locked["version"], *ours} == {clipsrv.__version__}


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version() -> None:
    titles = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[0] in {"Unreleased", clipsrv.__version__}
    assert len(titles) == len(set(titles))
