"""SigLIP 2's texts: the golden ids of transformers 5's Siglip2Tokenizer, over Gemma's real vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsrv.errors import InvalidTextError, ModelCorruptError
from clipsrv.specs import TokenSpec, TowerSpec
from clipsrv.text.opening import open_tokenizer
from clipsrv.text.tokens import MAX_CHARACTERS, Tokenizer
from conversions.tokenizers.gemma import as_siglip2
from tests.golden.texts import strings, with_end

ROOT = Path(__file__).parents[2]
VOCABULARY = ROOT / "node_modules" / "@lenml" / "tokenizer-gemma" / "models"
GOLDEN = ROOT / "tests" / "golden"
PAD, END = 0, 1
CONTEXT = 64


def tower(context_length: int = CONTEXT) -> TowerSpec:
    tokens = TokenSpec("gemma", PAD, "read")
    return TowerSpec("input_ids", "text_embeds", {"fp32": "text.onnx"}, context_length, "tokenizer.json", tokens)


@pytest.fixture(scope="module")
def rules(npm: str) -> dict[str, Any]:
    """Gemma's tokenizer with what SigLIP 2 asks of it."""
    return as_siglip2(with_end(json.loads((VOCABULARY / "tokenizer.json").read_bytes())))


@pytest.fixture(scope="module")
def tokenizer(rules: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("gemma") / "tokenizer.json"
    path.write_text(json.dumps(rules), encoding="utf-8")
    return open_tokenizer(path, tower())


def test_the_ids_of_500_strings_are_those_of_the_reference(tokenizer: Tokenizer) -> None:
    expected = json.loads((GOLDEN / "siglip2_ids.json").read_bytes())["ids"]
    assert len(expected) == 500
    for text, ids in zip(strings(), expected, strict=True):
        assert tokenizer.encode(text).ids.tolist() == ids + [PAD] * (CONTEXT - len(ids)), ascii(text[:100])


def test_every_id_is_given_to_the_model_padding_too(tokenizer: Tokenizer) -> None:
    """It takes its vector at the last one: a batch must never be cut to its longest text."""
    assert tokenizer.encode("猫").length == CONTEXT


def test_capitals_are_read_as_small_letters(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("A RED Dress").ids.tolist() == tokenizer.encode("a red dress").ids.tolist()


@pytest.mark.parametrize("unit", ["cat ", "赤い ドレス ", "a  b   "])
def test_of_a_text_of_any_length_what_the_model_reads_is_the_same(tokenizer: Tokenizer, unit: str) -> None:
    short = unit * (MAX_CHARACTERS // len(unit))
    assert tokenizer.encode(short * 50).ids.tolist() == tokenizer.encode(short).ids.tolist()


@pytest.mark.parametrize("text", ["a" + " " * 20_000, "x" * 20_000])
def test_a_long_text_without_words_to_cut_between_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InvalidTextError, match="send less text"):
        tokenizer.encode(text)


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidTextError, match="lone surrogate"):
        tokenizer.encode("a\ud800")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "goes on behind a space": lambda rules: rules["model"]["vocab"].update({"of▁the": 1}),
    "writes spaces in another way": lambda rules: rules.update(normalizer={"type": "NFC"}),
    "does more than lower-case": lambda rules: rules["normalizer"]["normalizers"].insert(0, {"type": "NFKC"}),
    "parts texts elsewhere": lambda rules: rules.update(pre_tokenizer={"type": "Split", "pattern": {"String": "a"}}),
    "its model is Unigram": lambda rules: rules["model"].update(type="Unigram"),
}


@pytest.mark.parametrize("said", CHANGES)
def test_other_rules_are_refused_with_the_reason(rules: dict[str, Any], said: str, tmp_path: Path) -> None:
    small = json.loads(json.dumps({**rules, "model": {**rules["model"], "vocab": {"a": 0, "<eos>": 1}, "merges": []}}))
    CHANGES[said](small)
    (tmp_path / "tokenizer.json").write_text(json.dumps(small))
    with pytest.raises(ModelCorruptError, match=r"Convert the model again") as caught:
        open_tokenizer(tmp_path / "tokenizer.json", tower())
    assert said in caught.value.message
