"""The first SigLIP's tokenizer: lower case, no punctuation, then sentencepiece's likeliest pieces.

The ids equal those of transformers' SiglipTokenizer (4.57), which asks the sentencepiece library too: the tokenizers
library adds scores in another precision, and takes other pieces where two partings are as likely.
"""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path

from clipsrv.documents import open_file
from clipsrv.errors import ConfigError, ModelCorruptError
from clipsrv.installation import how_to_install
from clipsrv.specs import TokenSpec
from clipsrv.text.tokens import Tokens, framed, head_of, require_enough, require_unicode

_SPACE = "▁"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipTokenizer:
    """Safe to call from several threads at once: nothing is changed after construction.

    Special tokens written out in a text are those tokens, as in the reference.
    """

    def __init__(self, path: Path, context_length: int, spec: TokenSpec) -> None:
        """Reads the sentencepiece model that the converter wrote: it puts no space in front of a text by itself.

        Raises ConfigError without the sentencepiece package, ModelCorruptError if the model cannot be read or has not
        the marks of `spec`.
        """
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            command = how_to_install("siglip")
            raise ConfigError(f"This model's texts need the sentencepiece package: {command}") from None
        try:
            with open_file(path) as file:
                self._pieces = SentencePieceProcessor(model_proto=file.read())
            known = {mark: self._pieces.piece_to_id(mark) for mark in spec.marks}
            if spec.pad_id is None or not known or len(known) != len(set(known.values())):
                raise ValueError("it has not the marks that its manifest names")
        except Exception as error:  # the library raises nothing narrower
            raise ModelCorruptError(
                f"Cannot use {path} as a tokenizer of the kind siglip ({type(error).__name__}: {error}). "
                "Convert the model again with python -m conversions."
            ) from error
        self._context_length, self._pad, self._padding_is_read = context_length, spec.pad_id, spec.padding == "read"
        self._marks, self._space = known, self._pieces.piece_to_id(_SPACE)
        unknown, self._end = spec.marks[0], known[spec.marks[-1]]
        # sentencepiece drops leading spaces: the reference puts this in front and takes its pieces off again.
        self._front, self._front_pieces = unknown, len(self._pieces.encode(unknown))
        self._parts = re.compile(f"({'|'.join(map(re.escape, spec.marks))})")

    def encode(self, text: str) -> Tokens:
        """Raises InvalidTextError for lone surrogates, and for text too long to be tokenized in bounded time."""
        require_unicode(text)
        head = head_of(text)
        found: list[int] = []
        for place, part in enumerate(self._parts.split(_SPACE + head.replace(_SPACE, " "))):
            if place % 2:
                if found == [self._space]:
                    found.clear()
                found.append(self._marks[part])
            elif part:
                found += self._ids(part)
        if len(head) < len(text):
            require_enough(len(found) + 1, self._context_length)
        kept = found[: self._context_length - 1]
        if not kept or kept[-1] != self._end:  # one that is written out is not marked again
            kept.append(self._end)
        tokens = framed(kept, self._context_length, self._pad, padding_is_read=self._padding_is_read)
        return replace(tokens, truncated=len(found) >= self._context_length)

    def _ids(self, part: str) -> list[int]:
        bare = part.lower().translate(_NO_PUNCTUATION)
        cleaned = re.sub(r"\s+", " ", bare).strip()
        ids: list[int] = self._pieces.encode(self._front + cleaned)
        return ids[self._front_pieces :]
