"""The one way to open a tokenizer: the manifest names its kind."""

from __future__ import annotations

from pathlib import Path

from clipsrv.errors import ModelCorruptError
from clipsrv.specs import TowerSpec
from clipsrv.text import gemma, unigram, wordpiece
from clipsrv.text.clip import ClipTokenizer
from clipsrv.text.pipeline import PipelineTokenizer, open_backend
from clipsrv.text.siglip import SiglipTokenizer
from clipsrv.text.tokens import Tokenizer

_BY_RULES = {"gemma": gemma.check, "unigram": unigram.check, "wordpiece": wordpiece.check}


def open_tokenizer(path: Path, tower: TowerSpec) -> Tokenizer:
    """The tokenizer of a text tower, whose file is `path`.

    Raises ModelCorruptError if it cannot be read, or its rules are not those of the kind that the manifest names.
    """
    spec, context_length = tower.tokens, tower.context_length
    if context_length is None:
        raise ModelCorruptError(f"The manifest beside {path} does not say how many tokens a text may have.")
    if spec.kind == "clip":
        return ClipTokenizer.from_file(path, context_length)
    if spec.kind == "siglip":
        return SiglipTokenizer(path, context_length, spec)
    if spec.kind not in _BY_RULES:
        raise ModelCorruptError(f"{path} is a tokenizer of the kind {spec.kind}, of which this version knows nothing.")
    return PipelineTokenizer(open_backend(path, spec.kind, _BY_RULES[spec.kind]), context_length, spec)
