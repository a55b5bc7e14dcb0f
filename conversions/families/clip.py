"""CLIP as transformers' CLIPModel has it: what beside its weights decides about its vectors.

Knows nothing of torch: configurations and tokenizers come in as JSON holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

#: Digest of OpenAI's vocabulary, merges and special tokens, as `tokenizer_digest` makes it.
OPENAI_TOKENIZER = "7deaeb5ce3a75b4b"
#: What transformers takes OpenAI's own configurations by: their end of text is written as 2, which is not its id.
_LEGACY_END = 2


def identity(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The manifest's `identity`: what of the model is not as in OpenAI's.

    `config` is CLIPConfig with its defaults filled in, `tokenizer` the content of tokenizer.json. Everything else that
    transformers' code reads of a configuration shows in the shapes of the weights, or is used in training only.
    """
    facts: dict[str, str | int | float] = {}
    for tower in ("vision", "text"):
        part = config[f"{tower}_config"]
        found = {
            "activation": (part["hidden_act"], "quick_gelu"),
            "epsilon": (part["layer_norm_eps"], 1e-5),
            "heads": (part["num_attention_heads"], part["hidden_size"] // 64),
        }
        facts |= {f"{tower}.{name}": mine for name, (mine, openai) in found.items() if mine != openai}
    text = config["text_config"]
    # The text's vector is taken at the first of its largest ids, or at the first end of text: the same if that is last.
    if text["eos_token_id"] not in (_LEGACY_END, text["vocab_size"] - 1):
        facts["text.end"] = text["eos_token_id"]
    if (digest := tokenizer_digest(tokenizer)) != OPENAI_TOKENIZER:
        facts["tokenizer"] = digest
    return facts


def tokenizer_digest(rules: Mapping[str, Any]) -> str:
    """Hash of what decides about ids in a tokenizer.json with CLIP's rules, however it is written."""
    model = rules["model"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    facts = {
        "vocab": model["vocab"],
        "merges": merges,
        "added": sorted((token["id"], token["content"]) for token in rules["added_tokens"]),
        "frame": [rules["post_processor"].get(end) for end in ("cls", "sep")],
        **{name: model.get(name) for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")},
        **{name: bool(model.get(name)) for name in ("fuse_unk", "byte_fallback", "ignore_merges")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
