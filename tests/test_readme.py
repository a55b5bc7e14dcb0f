"""What the README says of the settings is what the program has, and pages lead on: links, commands, Japanese."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from clipsrv.config import Config, flag, variable

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "README.ja.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAIR = ("catalogue.md", "catalogue.ja.md")


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


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (folder / target).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_commands_of_the_environment_says_how_to_enter_it(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    shell = "".join(block for block in blocks_of(text) if block.startswith(("```bash", "```sh")))
    if re.search(r"^(python|pip|clipsrv) ", shell, re.MULTILINE):
        assert re.search(r"\.venv/bin/(activate|python)", text)


def test_the_japanese_page_of_the_catalogue_has_the_same_commands_in_the_same_sections() -> None:
    english, japanese = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in PAIR)
    assert blocks_of(japanese) == blocks_of(english)
    assert [len(found) for found in re.findall(r"^(#+) ", japanese, re.MULTILINE)] == [
        len(found) for found in re.findall(r"^(#+) ", english, re.MULTILINE)
    ]


def blocks_of(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)


def test_the_words_of_the_japanese_pages_are_those_of_the_field() -> None:
    literal = {
        "復号": "デコード",
        "実寸": "フルサイズ",
        "回答": "レスポンス",
        "呼び出し元": "クライアント",
        "作者": "ベンダー",
        "メモリー": "メモリ",
    }
    for page in (ROOT / "README.ja.md", *(ROOT / "docs").glob("*.ja.md")):
        text = page.read_text(encoding="utf-8")
        assert {word: better for word, better in literal.items() if word in text} == {}, page.name
