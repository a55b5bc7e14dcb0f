"""BERT's tokenizer, that of Chinese-CLIP: words, and pieces of those it does not know. Chinese characters are words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsrv.text.pipeline import require


def check(rules: Mapping[str, Any]) -> None:
    """Raises ValueError if these are other rules."""
    require(rules, model=("WordPiece",), normalizer=("BertNormalizer",), pre_tokenizer=("BertPreTokenizer",))
