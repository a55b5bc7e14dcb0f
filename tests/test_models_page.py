"""docs/models.md and its Japanese page say what is known of the models, and both READMEs name each one's languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.models_page import PAGES, PURPOSES_JA, filled
from clipsrv.models.known import CHOICES, KNOWN

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("language", PAGES)
def test_the_tables_of_both_pages_are_those_of_the_facts(language: str) -> None:
    page = PAGES[language].read_text(encoding="utf-8")
    assert filled(page, language) == page, "python -m benchmarks.models_page writes them"


def test_a_page_without_a_mark_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs"):
        filled("no tables here", "en")


def test_every_model_has_a_purpose_in_japanese_and_every_need_models_that_are_known() -> None:
    assert set(PURPOSES_JA) == set(KNOWN)
    assert {name for names in CHOICES.values() for name in names} <= set(KNOWN)


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_each_readme_names_every_model_or_its_series(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`([a-z0-9-]+?)(?:-\.\.\.)?`", text)
    assert not [model for model in KNOWN if not any(model.startswith(one) for one in named)]
