"""docs/api.md and docs/api.ja.md are what scripts/write-api-page writes: of every operation its fields, an example."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.api_page import pages
from tests.support.api_words import JAPANESE
from tests.support.server import ServerProcess

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def written(demo_server: ServerProcess) -> dict[str, str]:
    return pages(demo_server)


@pytest.mark.parametrize("name", ["api.md", "api.ja.md"])
def test_the_page_is_what_the_server_says_today(name: str, written: dict[str, str]) -> None:
    shipped = (DOCS / name).read_text(encoding="utf-8")
    assert shipped.splitlines() == written[name].splitlines(), "write it with scripts/write-api-page"


def test_every_translation_is_used(written: dict[str, str]) -> None:
    page = written["api.ja.md"]
    parts = {japanese: japanese.replace("\\\n", "").split("{}") for japanese in JAPANESE.values() if japanese != "{}"}
    assert [japanese for japanese, pieces in parts.items() if not all(piece in page for piece in pieces)] == []
