"""The golden texts, and Gemma's vocabulary framed as SigLIP 2's repositories have it. Knows no reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent


def strings() -> list[str]:
    """The 500 strings of tokenizer_ids.json."""
    rows = json.loads((GOLDEN / "tokenizer_ids.json").read_bytes())["strings"]
    return [row["unit"] * row["repeat"] for row in rows]


def with_end(rules: Mapping[str, Any], end: str = "<eos>", number: int = 1) -> dict[str, Any]:
    """A tokenizer.json whose texts end with their mark and have none in front."""
    text = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    special = {end: {"id": end, "ids": [number], "tokens": [end]}}
    pair = [*text, {"Sequence": {"id": "B", "type_id": 1}}]
    frame = {"type": "TemplateProcessing", "single": text, "pair": pair, "special_tokens": special}
    return {**rules, "post_processor": frame}
