"""What the README says of the settings is what the program has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from clipsrv.config import Config, flag, variable

ROOT = Path(__file__).parent.parent


def settings_table() -> list[list[str]]:
    """Flag, variable, default and meaning of every setting, as Markdown cells."""
    return [
        [f"`{flag(item.name)}`", f"`{variable(item.name)}`", shown(item.default), item.metadata["help"]]
        for item in fields(Config)
    ]


def shown(default: object) -> str:
    return "" if default == "" else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def rows(page: str) -> list[list[str]]:
    lines = re.findall(r"^\| `--.*\|$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_readme_lists_every_setting_with_its_default_and_its_help() -> None:
    expected = "\n".join("| " + " | ".join(row) + " |" for row in settings_table())
    assert rows("README.md") == settings_table(), f"the table should be:\n{expected}"


def test_the_japanese_readme_lists_every_setting_with_its_default() -> None:
    assert [row[:3] for row in rows("README.ja.md")] == [row[:3] for row in settings_table()]


@pytest.mark.parametrize(
    "page", ["README.md", "README.ja.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (folder / target).exists()] == []
