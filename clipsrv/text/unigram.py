"""XLM-RoBERTa's and T5's tokenizers: of each word the likeliest parting into pieces (sentencepiece's unigram)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsrv.text.pipeline import require, steps

#: Unicode's compatible forms as sentencepiece has them, and what else is done to spaces.
_NORMALIZERS = {"Precompiled", "Replace", "Strip"}
_PARTING = {"WhitespaceSplit", "Metaspace"}


def check(rules: Mapping[str, Any]) -> None:
    """Raises ValueError if these are other rules."""
    require(rules, model=("Unigram",))
    for part, known in (("normalizer", _NORMALIZERS), ("pre_tokenizer", _PARTING)):
        others = {step["type"] for step in steps(rules[part])} - known
        if others or not rules[part]:
            raise ValueError(f"its {part} is {' and '.join(sorted(others)) or 'missing'}")
    if any(step["type"] == "Metaspace" and not step.get("split", True) for step in steps(rules["pre_tokenizer"])):
        raise ValueError("its pre_tokenizer does not part words")
