"""A sentencepiece model as clipsrv/text/siglip.py reads it: without a space in front of every text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversions.errors import CheckpointError

_MARKS = (("unk_token", "<unk>"), ("pad_token", "</s>"), ("eos_token", "</s>"))


def without_prefix(path: Path) -> bytes:
    """The model with the one setting that transformers' SiglipTokenizer changes. Raises CheckpointError."""
    model = _read(path)
    model.normalizer_spec.add_dummy_prefix = False
    changed: bytes = model.SerializeToString()
    return changed


def marks(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The unknown, padding and end marks that tokenizer_config.json names."""
    named = (settings.get(name, usual) for name, usual in _MARKS)
    return tuple(str(mark["content"] if isinstance(mark, Mapping) else mark) for mark in named)


def piece_id(path: Path, piece: str) -> int:
    """The id of a piece. Raises CheckpointError if there is none."""
    for place, one in enumerate(_read(path).pieces):
        if one.piece == piece:
            return place
    raise CheckpointError(f"{path} has no piece {piece!r}.")


def _read(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from transformers.convert_slow_tokenizer import import_protobuf

    try:
        return import_protobuf().ModelProto.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from None
