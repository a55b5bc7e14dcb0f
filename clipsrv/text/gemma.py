"""Gemma's tokenizer, that of SigLIP 2: byte pairs over the whole text, lower-cased first where the model wants it.

The ids equal those of transformers' Siglip2Tokenizer (5.x); 4.57 forgets to lower-case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsrv.text.pipeline import require, steps

_SPACE = "▁"


def check(rules: Mapping[str, Any]) -> None:
    """Raises ValueError if these are other rules, or if a piece could join what a space parts."""
    require(rules, model=("BPE",), pre_tokenizer=("Split",) if rules["pre_tokenizer"] else ())
    *lower, replace = steps(rules["normalizer"])
    if [step["type"] for step in lower] not in ([], ["Lowercase"]):
        raise ValueError("its normalizer does more than lower-case")
    if (replace["type"], replace.get("pattern"), replace.get("content")) != ("Replace", {"String": " "}, _SPACE):
        raise ValueError("its normalizer writes spaces in another way")
    if rules["pre_tokenizer"] and rules["pre_tokenizer"]["pattern"] != {"String": " "}:
        raise ValueError("its pre_tokenizer parts texts elsewhere than at spaces")
    for piece in (
        *rules["model"]["vocab"],
        *(token["content"].replace(" ", _SPACE) for token in rules["added_tokens"]),
    ):
        if _SPACE in piece.lstrip(_SPACE):
            raise ValueError(f"its piece {piece!r} goes on behind a space")
