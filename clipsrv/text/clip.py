"""Text to token ids by CLIP's rules. Knows nothing of onnxruntime, HTTP, or what a text tower does with the ids.

The ids equal those of transformers' CLIPTokenizerFast (4.57). OpenAI's first tokenizer also repaired mojibake (ftfy)
and resolved HTML entities; the fast tokenizer does neither, so "&amp;" is four tokens of text here as there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import tokenizers

from clipsrv.errors import InvalidTextError, ModelCorruptError
from clipsrv.text.tokens import MAX_CHARACTERS, Tokens, framed, ids_of, require_unicode

# What "\s" means to the tokenizers library. Python's own "\s" also holds U+001C to U+001F, which are text to CLIP.
WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD = re.compile(f"[^{WHITESPACE}]+")

_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_SPECIALS = (
    r"<\|startoftext\|>|<\|endoftext\|>|"  # written by transformers 5; found before the split, so without effect
)


class ClipTokenizer:
    """Safe to call from several threads at once: nothing is changed after construction.

    A literal "<|endoftext|>" (any case) in a text is that special token, as in the reference. The text tower takes its
    vector at the first one, so what the sender writes after it is not read; no other text is touched by it.
    """

    def __init__(self, backend: tokenizers.Tokenizer, context_length: int) -> None:
        """Takes over `backend`, which must follow CLIP's rules: `from_file` checks that, this does not."""
        padding = backend.padding
        backend.no_padding()
        backend.no_truncation()
        empty = backend.encode("").ids
        if len(empty) != 2 or context_length < 3:
            raise ModelCorruptError(
                f"An empty text has {len(empty)} tokens and the context {context_length}; CLIP needs 2, and 3 or more."
            )
        self._backend = backend
        self._context_length = context_length
        self._end = empty[1]
        self._pad: int = padding["pad_id"] if padding else self._end

    @classmethod
    def from_file(cls, path: Path, context_length: int = 77) -> ClipTokenizer:
        """Reads a tokenizer.json as transformers saves it; pads with its padding token, or with the end of text.

        Raises ModelCorruptError if it cannot be read or its rules are not CLIP's.
        """
        try:
            raw = path.read_text(encoding="utf-8")
            if not _has_clip_rules(json.loads(raw)):
                raise ValueError("its normalizer, pre-tokenizer, unknown token or added tokens are not CLIP's")
            backend = tokenizers.Tokenizer.from_str(raw)
        except Exception as error:  # the library raises nothing narrower
            raise ModelCorruptError(
                f"Cannot use {path} as a CLIP tokenizer ({type(error).__name__}: {error}). "
                "Convert the model again with python -m conversions."
            ) from error
        return cls(backend, context_length)

    def encode(self, text: str) -> Tokens:
        """Raises InvalidTextError for lone surrogates, and for text that is too long to be tokenized in bounded time.

        The ids depend on no more than the first context_length - 1 words (runs without whitespace) of the text: no
        rule joins characters across whitespace, whitespace itself makes no token, and each word makes at least one.
        Only those words are tokenized, and together they may hold MAX_CHARACTERS.
        """
        require_unicode(text)
        words = islice(_WORD.finditer(text), self._context_length - 1)
        head = " ".join(word.group() for word in words)
        if len(head) > MAX_CHARACTERS:
            raise InvalidTextError(
                f"The first {self._context_length - 1} words of the text have {len(head):,} characters, more than "
                f"{MAX_CHARACTERS:,}. The model reads {self._context_length} tokens at most: send less text.",
                limit=MAX_CHARACTERS,
            )
        return framed(ids_of(self._backend, head), self._context_length, self._pad)


def _has_clip_rules(rules: Mapping[str, Any]) -> bool:
    split, byte_level = rules["pre_tokenizer"]["pretokenizers"]
    return (
        rules["normalizer"] == _NORMALIZER
        and split["pattern"]["Regex"].removeprefix(_SPECIALS) == _PIECES
        and (split["behavior"], split["invert"]) == ("Removed", True)
        and (byte_level["type"], byte_level["add_prefix_space"]) == ("ByteLevel", False)
        and rules["model"]["unk_token"] in rules["model"]["vocab"]
        and not any(re.search(f"[{WHITESPACE}]", token["content"]) for token in rules["added_tokens"])
    )
