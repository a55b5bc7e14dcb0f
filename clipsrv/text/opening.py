"""The one way to open a tokenizer: the manifest names its kind."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from weakref import WeakValueDictionary

from clipsrv.errors import ModelCorruptError
from clipsrv.specs import TowerSpec
from clipsrv.text import gemma, unigram, wordpiece
from clipsrv.text.clip import ClipTokenizer
from clipsrv.text.pipeline import PipelineTokenizer, open_backend
from clipsrv.text.siglip import SiglipTokenizer
from clipsrv.text.tokens import Tokenizer

_BY_RULES = {"gemma": gemma.check, "unigram": unigram.check, "wordpiece": wordpiece.check}


class Tokenizers:
    """Opens tokenizers for one model after the other: of one file and the same rules there is one, as long as any
    model has it. To build one takes tens of megabytes, and holds Python's lock all the while."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[Hashable, Tokenizer] = WeakValueDictionary()

    def open(self, path: Path, tower: TowerSpec, sha256: str) -> Tokenizer:
        """As `open_tokenizer`; `sha256` is that of the file."""
        key = (sha256, tower.tokens, tower.context_length)
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = open_tokenizer(path, tower)
        return found


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
