"""Tokenizers of every kind opened by what their manifest says, and refused by what their rules are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsrv.errors import ConfigError, InvalidTextError, ModelCorruptError
from clipsrv.specs import TokenSpec, TowerSpec
from clipsrv.text.opening import open_tokenizer
from clipsrv.text.tokens import MAX_CHARACTERS
from tests.golden.texts import with_end

UNIGRAM: dict[str, Any] = with_end(
    {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": False,
            "vocab": [["<unk>", 0.0], ["<eos>", 0.0], ["<pad>", 0.0], ["▁", -4.0], ["▁cat", -2.0], ["▁dog", -2.0]],
        },
    }
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "猫", "的", "照", "片", "cat", "##s")
WORDPIECE: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": {"type": "BertNormalizer", "lowercase": True, "clean_text": True, "handle_chinese_chars": True}
    | {"strip_accents": None},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "decoder": None,
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {word: place for place, word in enumerate(WORDS)},
    },
}
RULES = {"unigram": UNIGRAM, "wordpiece": WORDPIECE}


def tower(kind: str, context_length: int | None = 8, **facts: Any) -> TowerSpec:
    tokens = TokenSpec(kind, **{"pad_id": 2 if kind == "unigram" else 0, **facts})
    return TowerSpec("input_ids", "text_embeds", {"fp32": "text.onnx"}, context_length, "tokenizer.json", tokens)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(rules: dict[str, Any]) -> Path:
        (tmp_path / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
        return tmp_path / "tokenizer.json"

    return write


@pytest.mark.parametrize(
    ("kind", "text", "ids", "length"),
    [
        ("unigram", "cat  dog", [4, 5, 1, 2, 2, 2, 2, 2], 3),
        ("unigram", "", [1, 2, 2, 2, 2, 2, 2, 2], 1),
        ("unigram", "cat " * 20, [4, 4, 4, 4, 4, 4, 4, 1], 8),
        ("wordpiece", "猫的照片", [2, 4, 5, 6, 7, 3, 0, 0], 6),
        ("wordpiece", "CATS dog", [2, 8, 9, 1, 3, 0, 0, 0], 5),
        ("wordpiece", "猫" * 20, [2, 4, 4, 4, 4, 4, 4, 3], 8),
    ],
)
def test_each_kind_frames_cuts_and_pads(
    write: Callable[..., Path], kind: str, text: str, ids: list[int], length: int
) -> None:
    tokens = open_tokenizer(write(RULES[kind]), tower(kind)).encode(text)
    assert (tokens.ids.tolist(), tokens.length, tokens.truncated) == (ids, length, text.count(text[:1]) == 20)


@pytest.mark.parametrize("kind", RULES)
def test_a_long_text_is_read_as_far_as_it_matters_or_refused(write: Callable[..., Path], kind: str) -> None:
    tokenizer = open_tokenizer(write(RULES[kind]), tower(kind))
    assert tokenizer.encode("cat " * 9000).ids.tolist() == tokenizer.encode("cat " * 20).ids.tolist()
    with pytest.raises(InvalidTextError, match=f"first {MAX_CHARACTERS:,} characters"):
        tokenizer.encode("cat " + " " * 2 * MAX_CHARACTERS)


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "its model is BPE, not Unigram": ("unigram", lambda rules: rules["model"].update(type="BPE")),
    "its normalizer is Lowercase": ("unigram", lambda rules: rules.update(normalizer={"type": "Lowercase"})),
    "its pre_tokenizer is missing": ("unigram", lambda rules: rules.update(pre_tokenizer=None)),
    "does not part words": ("unigram", lambda rules: rules["pre_tokenizer"].update(split=False)),
    "its pre_tokenizer is Whitespace, not Bert": (
        "wordpiece",
        lambda rules: rules.update(pre_tokenizer={"type": "Whitespace"}),
    ),
    "its normalizer is missing": ("wordpiece", lambda rules: rules.update(normalizer=None)),
}


@pytest.mark.parametrize("said", CHANGES)
def test_other_rules_are_refused_with_the_reason(write: Callable[..., Path], said: str) -> None:
    kind, change = CHANGES[said]
    rules = json.loads(json.dumps(RULES[kind]))
    change(rules)
    with pytest.raises(ModelCorruptError, match="Convert the model again") as caught:
        open_tokenizer(write(rules), tower(kind))
    assert said in caught.value.message


def test_a_kind_of_a_later_version_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ModelCorruptError, match="kind morphemes, of which this version knows nothing"):
        open_tokenizer(write(UNIGRAM), tower("morphemes"))


def test_a_tower_that_says_too_little_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ModelCorruptError, match="how many tokens"):
        open_tokenizer(write(UNIGRAM), tower("unigram", None))
    with pytest.raises(ModelCorruptError, match="names no pad_id"):
        open_tokenizer(write(UNIGRAM), tower("unigram", pad_id=None))
    with pytest.raises(ModelCorruptError, match="marks no end"):
        open_tokenizer(write({**UNIGRAM, "post_processor": None}), tower("unigram"))


def test_what_is_no_sentencepiece_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spiece.model").write_bytes(b"not one")
    spec = tower("siglip", pad_id=1, marks=("<unk>", "</s>"))
    with pytest.raises(ModelCorruptError, match="of the kind siglip"):
        open_tokenizer(tmp_path / "spiece.model", spec)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"pip install --editable '.*\[siglip\]'"):
        open_tokenizer(tmp_path / "spiece.model", spec)
