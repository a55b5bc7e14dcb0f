"""The tokenizer beside transformers' CLIPTokenizerFast itself, built from OpenAI's vocabulary and merges."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizerFast

from clipsrv.text.clip import ClipTokenizer
from clipsrv.text.tokens import MAX_CHARACTERS
from tests.golden.tokenizer import reference_ids

GOLDEN = Path(__file__).parents[1] / "golden"

characters = st.characters(exclude_categories=["Cs"])
specials_and_spaces = ["<|endoftext|>", "<|StartOfText|>", "<|", "\r\n", "\u3000", "\x1c", "\x00"]
casing_and_composition = ["\u0130", "\u03a3", "\u0301", "\u1112\u1161\u11ab", "\U0001f469\U0001f3fd\u200d\U0001f680"]
telling = st.sampled_from(
    [*specials_and_spaces, *casing_and_composition, "'s", "'LL", "\u65e5\u672c", "&amp;", "1", "cat"]
)
texts = st.lists(st.one_of(telling, st.text(characters)), max_size=30).map("".join)
spaces = st.sampled_from([" ", "\n", "\t\t", "\u2003", "\x85", "\xa0 "])


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    return json.loads(lzma.decompress((GOLDEN / "tokenizer_openai.json.xz").read_bytes()))


@pytest.fixture(scope="module")
def reference(rules: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizerFast:
    folder = tmp_path_factory.mktemp("reference")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in rules["model"]["merges"]), ""]
    (folder / "vocab.json").write_text(json.dumps(rules["model"]["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    return CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


@pytest.fixture(scope="module")
def tokenizer(rules: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(json.dumps(rules), encoding="utf-8")
    return ClipTokenizer.from_file(path)


def test_the_golden_tokenizer_is_what_transformers_saves(reference: CLIPTokenizerFast, rules: dict[str, Any]) -> None:
    assert json.loads(reference.backend_tokenizer.to_str()) == rules


def test_the_golden_ids_are_those_of_the_installed_reference(reference: CLIPTokenizerFast) -> None:
    for row in json.loads((GOLDEN / "tokenizer_ids.json").read_bytes())["strings"]:
        assert reference_ids(reference, row["unit"] * row["repeat"]) == row["ids"], ascii(row["unit"])


@settings(max_examples=1000, deadline=None)
@given(texts, st.integers(1, 20))
@example("", 1)
def test_any_text_gives_the_references_ids(
    reference: CLIPTokenizerFast, tokenizer: ClipTokenizer, text: str, repeat: int
) -> None:
    assume(len(text * repeat) <= MAX_CHARACTERS)
    assert_parity(reference, tokenizer, text * repeat)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(telling, st.text(characters, max_size=3)), min_size=150, max_size=300), spaces)
def test_text_with_more_words_than_are_read_gives_the_references_ids(
    reference: CLIPTokenizerFast, tokenizer: ClipTokenizer, words: list[str], space: str
) -> None:
    assert_parity(reference, tokenizer, space.join(words))


def assert_parity(reference: CLIPTokenizerFast, tokenizer: ClipTokenizer, text: str) -> None:
    expected = reference(text, padding="max_length", max_length=77, truncation=True)
    whole = reference(text)["input_ids"]
    tokens = tokenizer.encode(text)
    assert tokens.ids.tolist() == expected["input_ids"]
    assert tokens.length == sum(expected["attention_mask"])
    assert tokens.truncated == (len(whole) > 77)
