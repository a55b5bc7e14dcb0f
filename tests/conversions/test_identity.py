"""What of a CLIP is told apart by the manifest's identity, and that OpenAI's own models have none."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPConfig

from conversions.families.clip import identity, tokenizer_digest

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZER: dict[str, Any] = json.loads(lzma.decompress((GOLDEN / "tokenizer_openai.json.xz").read_bytes()))


def config(*, vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None) -> dict[str, Any]:
    return CLIPConfig(vision_config=vision or {}, text_config=text or {}).to_dict()


@pytest.mark.parametrize("end", [2, 49407])
def test_openais_models_have_none_whichever_way_their_end_of_text_is_written(end: int) -> None:
    large = {"hidden_size": 1024, "num_attention_heads": 16}
    for vision in ({}, large):
        assert identity(config(vision=vision, text={"eos_token_id": end}), TOKENIZER) == {}


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({"vision": {"hidden_act": "gelu"}}, {"vision.activation": "gelu"}),
        ({"text": {"hidden_act": "gelu"}}, {"text.activation": "gelu"}),
        ({"vision": {"layer_norm_eps": 1e-6}}, {"vision.epsilon": 1e-6}),
        ({"text": {"layer_norm_eps": 1e-6}}, {"text.epsilon": 1e-6}),
        ({"vision": {"num_attention_heads": 8}}, {"vision.heads": 8}),
        ({"text": {"num_attention_heads": 16}}, {"text.heads": 16}),
        ({"text": {"eos_token_id": 5}}, {"text.end": 5}),
        ({"text": {"vocab_size": 49410}}, {"text.end": 49407}),
    ],
)
def test_each_setting_that_changes_vectors_is_told(changed: dict[str, Any], facts: dict[str, Any]) -> None:
    assert identity(config(**changed), TOKENIZER) == facts


def rules() -> dict[str, Any]:
    """A tokenizer.json of five tokens."""
    model = {"vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3, "</s>": 4}, "merges": [["a", "b"]], "unk_token": "<s>"}
    added = [{"id": number, "content": content} for number, content in ((3, "<s>"), (4, "</s>"))]
    return {"model": model, "added_tokens": added, "post_processor": {"cls": ["<s>", 3], "sep": ["</s>", 4]}}


def test_the_tokenizers_digest_follows_what_it_does_and_not_how_it_is_written() -> None:
    other = rules() | {"padding": {"strategy": "BatchLongest"}}
    other["model"]["merges"] = ["a b"]
    assert tokenizer_digest(other) == tokenizer_digest(rules())
    digests = {tokenizer_digest(rules())}
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda rules: rules["model"]["vocab"].update(a=1, b=0),
        lambda rules: rules["model"]["merges"].append(["b", "a"]),
        lambda rules: rules["added_tokens"].pop(),
        lambda rules: rules["post_processor"].update(sep=["a", 0]),
        lambda rules: rules["model"].update(ignore_merges=True),
    ]
    for change in changes:
        other = rules()
        change(other)
        digests.add(tokenizer_digest(other))
    assert len(digests) == 1 + len(changes)
