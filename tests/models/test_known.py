"""The models that are known by name: which languages they know, told of a converted one as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clipsrv.manifest import load_manifest
from clipsrv.models.folders import KNOWN_MODELS
from clipsrv.models.known import KNOWN, in_words, languages_of
from clipsrv.models.model import Model
from conversions.known import KNOWN as CHECKPOINTS

ROOT = Path(__file__).parents[2]


def from_source(model: Model, **source: str) -> Model:
    return replace(model, manifest=replace(model.manifest, source={**model.manifest.source, **source}))


def test_the_guides_names_come_first_and_are_pinned() -> None:
    assert tuple(KNOWN)[:4] == KNOWN_MODELS
    assert all(KNOWN[name].weights_sha256 and len(KNOWN[name].revision) == 40 for name in KNOWN_MODELS)


def test_every_known_model_says_where_it_is_what_it_knows_and_what_it_is_for() -> None:
    for name, known in KNOWN.items():
        assert known.repo.count("/") == 1, name
        assert known.languages, name
        assert known.purpose, name
        assert known.license, name
    assert len({known.repo for known in KNOWN.values()}) == len(KNOWN)


def test_the_converter_knows_the_same_and_tells_the_language_first() -> None:
    assert list(CHECKPOINTS) == list(KNOWN)
    assert CHECKPOINTS["laion-b-32"].purpose == "English; finds more than vit-b-32 at its speed"
    assert CHECKPOINTS["xlm-roberta-b-32"].purpose.startswith("a hundred languages; strong in Japanese")


def test_the_languages_of_a_converted_model_are_those_its_manifest_says(model: Model) -> None:
    assert from_source(model, languages="en ja").languages == ("en", "ja")
    assert from_source(model, languages="en,ja", repo="openai/clip-vit-base-patch32").languages == ("en", "ja")


def test_a_manifest_that_says_nothing_has_those_of_its_repository_if_that_is_known(model: Model) -> None:
    assert from_source(model, repo="openai/clip-vit-base-patch32").languages == ("en",)
    assert from_source(model, repo="google/siglip2-base-patch16-256").languages == ("many",)
    assert model.languages == languages_of(model.manifest) == ()


def test_the_bundled_model_says_its_languages() -> None:
    assert languages_of(load_manifest(ROOT / "onnx_models/demo")) == ("en", "ja")


@pytest.mark.parametrize(
    ("languages", "words"),
    [(("en",), "English"), (("en", "ja"), "English and Japanese"), (("many",), "a hundred languages"), ((), "unknown")],
)
def test_languages_are_said_in_words(languages: tuple[str, ...], words: str) -> None:
    assert in_words(languages) == words


def test_a_text_is_read_with_the_models_languages_in_mind(model: Model) -> None:
    english = from_source(model, languages="en")
    assert english.read_text("猫").unknown_script
    assert not english.read_text("cat").unknown_script
    assert not model.read_text("猫").unknown_script
    assert english.read_text("猫").ids.tolist() == model.read_text("猫").ids.tolist()
