"""Text to token ids where every rule stands in tokenizer.json, and the tokenizers library follows them all.

Which rules they may be is each kind's own: gemma, unigram, wordpiece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from clipsrv.documents import read_json
from clipsrv.errors import ModelCorruptError
from clipsrv.specs import TokenSpec
from clipsrv.text.clean import cleaning
from clipsrv.text.tokens import Tokens, framed, head_of, ids_of, require_enough, require_unicode

#: The largest known has 35 MB.
MAX_BYTES = 256 * 2**20

#: Raises ValueError for rules, as tokenizer.json has them, that are not those of a kind.
Check = Callable[[Mapping[str, Any]], None]


class PipelineTokenizer:
    """Safe to call from several threads at once: nothing is changed after construction.

    Special tokens written out in a text are those tokens, as in the reference.
    """

    def __init__(self, backend: tokenizers.Tokenizer, context_length: int, spec: TokenSpec) -> None:
        """Takes over `backend`. Its tokens must part at spaces: the checks of the kinds see to that."""
        backend.no_padding()
        backend.no_truncation()
        empty = backend.encode("").ids
        if not empty or spec.pad_id is None:
            raise ModelCorruptError("The tokenizer marks no end of a text, or its manifest names no pad_id.")
        try:
            self._clean = cleaning(spec.clean)
        except ValueError as error:
            raise ModelCorruptError(f"The manifest asks for {error}, of which this version knows nothing.") from None
        self._backend, self._context_length = backend, context_length
        self._pad = spec.pad_id
        self._padding_is_read = spec.padding == "read"

    def encode(self, text: str) -> Tokens:
        """Raises InvalidTextError for lone surrogates, and for text too long to be tokenized in bounded time."""
        require_unicode(text)
        head = head_of(text)
        found = ids_of(self._backend, self._clean(head))
        if len(head) < len(text):
            require_enough(len(found), self._context_length)
        return framed(found, self._context_length, self._pad, padding_is_read=self._padding_is_read)


def open_backend(path: Path, kind: str, check: Check) -> tokenizers.Tokenizer:
    """The tokenizer.json at `path`. Raises ModelCorruptError if it cannot be read or its rules are not the kind's."""
    try:
        check(read_json(path, MAX_BYTES))
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ModelCorruptError(
            f"Cannot use {path} as a tokenizer of the kind {kind} ({type(error).__name__}: {error}). "
            "Convert the model again with python -m conversions."
        ) from error


def require(rules: Mapping[str, Any], **expected: tuple[str, ...]) -> None:
    """Raises ValueError unless each part is made of steps of the types given, in their order."""
    for part, types in expected.items():
        found = tuple(step["type"] for step in steps(rules[part]))
        if found != types:
            raise ValueError(f"its {part} is {' and '.join(found) or 'missing'}, not {' and '.join(types) or 'none'}")


def steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre_tokenizer, whether it is one or a sequence."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for inner in part.get("normalizers") or part["pretokenizers"] for step in steps(inner)]
    return [part]
