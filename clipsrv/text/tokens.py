"""What every tokenizer gives, and what each must be told before it may look at a text. Knows no tokenizer's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

from clipsrv.errors import InvalidTextError

#: Characters that reach the tokenizers library; its time is linear in them, at worst some 10 µs each.
MAX_CHARACTERS = 10_000


@dataclass(frozen=True, eq=False)
class Tokens:
    """`ids` int64 (context_length,): the text between its marks, then padding.

    `length` is how many of them the model must be given: all but the padding, and that too where the model reads it.
    `count` is how many there are beside padding, marks included.
    `truncated`: the text had more tokens than fit; its end mark is kept. `unknown_script`: none of its letters is of a
    script that the model's languages are written in, which the tokenizer itself cannot know.
    """

    ids: npt.NDArray[np.int64]
    length: int
    truncated: bool
    count: int
    unknown_script: bool = False


class Tokenizer(Protocol):
    """Safe to call from several threads at once: nothing is changed after construction."""

    def encode(self, text: str) -> Tokens:
        """Raises InvalidTextError for lone surrogates, and for text too long to be tokenized in bounded time."""


def require_unicode(text: str) -> None:
    """Raises InvalidTextError for lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"The text is not valid Unicode: character {error.start} is a lone surrogate.", position=error.start
        ) from None


def head_of(text: str) -> str:
    """`text`, or of a longer one as much as may be tokenized, up to a space: no rule joins what a space parts."""
    if len(text) <= MAX_CHARACTERS:
        return text
    cut = MAX_CHARACTERS
    while cut > 0 and not (text[cut] == " " and text[cut - 1] != " "):
        cut -= 1
    return text[:cut]


def ids_of(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """The ids of `text`, with its marks. Of the library's calls the one that leaves Python's lock to other threads: a
    text of MAX_CHARACTERS takes it ten milliseconds, on a busy machine many more."""
    ids: list[int] = backend.encode_batch_fast([text])[0].ids
    return ids


def framed(found: Sequence[int], context_length: int, pad: int, *, padding_is_read: bool = False) -> Tokens:
    """`found`, which ends with its end mark, cut or padded to the context."""
    ids = np.full(context_length, pad, dtype=np.int64)
    length = min(len(found), context_length)
    ids[:length] = found[:length]
    ids[length - 1] = found[-1]
    read = context_length if padding_is_read else length
    return Tokens(ids, read, len(found) > context_length, length)


def require_enough(found: int, context_length: int) -> None:
    """Raises InvalidTextError if what `head_of` left out of a long text could have filled its context."""
    if found < context_length:
        raise InvalidTextError(
            f"The first {MAX_CHARACTERS:,} characters of the text hold no {context_length} tokens, which the model "
            "would read: send less text, or put spaces between its words.",
            limit=MAX_CHARACTERS,
        )
