"""A tokenizer.json that is served as it is, and its padding token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversions.errors import CheckpointError
from conversions.files import MAX_TOKENIZER_BYTES, TOKENIZER, TOKENIZER_CONFIG, read_object


def read_rules(folder: Path) -> dict[str, Any]:
    """The content of the checkpoint's tokenizer.json. Raises CheckpointError."""
    return read_object(folder / TOKENIZER, MAX_TOKENIZER_BYTES)


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json; nothing where there is none. Raises CheckpointError."""
    return read_object(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}


def served(rules: Mapping[str, Any]) -> bytes:
    """`rules` as a file, without cutting and padding: the server does both."""
    whole = {**rules, "truncation": None, "padding": None}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def pad_id(rules: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """The id of the padding token that tokenizer_config.json names. Raises CheckpointError if there is none."""
    named = settings.get("pad_token", "<pad>")
    token = str(named["content"] if isinstance(named, Mapping) else named)
    vocabulary = rules["model"]["vocab"]
    ids = dict(vocabulary) if isinstance(vocabulary, Mapping) else {}
    ids |= {added["content"]: added["id"] for added in rules["added_tokens"]}
    if token not in ids:
        raise CheckpointError(f"The tokenizer has no padding token {token!r}.")
    return int(ids[token])
