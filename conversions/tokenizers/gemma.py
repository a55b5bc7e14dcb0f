"""Gemma's tokenizer.json as SigLIP 2 reads it, by the rules of transformers 5's Siglip2Tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversions.errors import CheckpointError

_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_LOWER = {"type": "Lowercase"}


def as_siglip2(rules: Mapping[str, Any]) -> dict[str, Any]:
    """`rules` lower-casing first. Raises CheckpointError for another kind of tokenizer."""
    if rules["model"]["type"] != "BPE":
        raise CheckpointError(f"The tokenizer is {rules['model']['type']}, not Gemma's byte pairs (BPE).")
    lowered = {"type": "Sequence", "normalizers": [_LOWER, _SPACES]}
    return {**rules, "normalizer": lowered, "truncation": None, "padding": None}
