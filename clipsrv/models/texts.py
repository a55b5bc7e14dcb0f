"""Texts to vectors: batches by tokens, and in a batch those together that are alike. Knows nothing of who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import TextTowerMissingError
from clipsrv.models.model import Model
from clipsrv.providers.table import provider
from clipsrv.runtime.encoder import TextEncoder
from clipsrv.runtime.vectors import Vectors
from clipsrv.text.tokens import Tokens

#: Tokens of a batch of texts for each image that a batch may hold. A text of CLIP's has 77 at most, and seldom 20:
#: batches of 36 short ones are a third faster a text than batches of 8, and take no longer than 8 images.
TOKENS_PER_IMAGE = 64
#: How many times dearer a further run is where padding is not computed, and only attention is longer by it.
_PACKED = 32


class EmbeddedTexts(NamedTuple):
    """`vectors` (n, dimensions), float32, of unit length; `truncated` are the indices of texts cut short."""

    vectors: Vectors
    truncated: tuple[int, ...]


def embed_texts(model: Model, texts: Sequence[str], batch_size: int) -> EmbeddedTexts:
    """Where nobody else waits: `batch_size` is that of images. Raises InvalidTextError, TextTowerMissingError,
    EngineError."""
    encoder, tokenizer = model.text_encoder, model.tokenizer
    if encoder is None or tokenizer is None:
        raise TextTowerMissingError(f"{model.manifest.name} has no text tower: it embeds images only.")
    tokens = [tokenizer.encode(text) for text in texts]
    vectors = np.empty((len(texts), model.manifest.dimensions), np.float32)
    run_cost = provider(model.device).run_cost
    for places in _batches(tokens, batching_order(model, tokens), batch_size * TOKENS_PER_IMAGE):
        vectors[places] = embed_tokens(encoder, [tokens[place] for place in places], run_cost)
    return EmbeddedTexts(vectors, tuple(index for index, one in enumerate(tokens) if one.truncated))


def embed_tokens(encoder: TextEncoder, tokens: Sequence[Tokens], run_cost: int | None) -> Vectors:
    """Unit vectors (n, dimensions), float32, of one batch, in its order, computed in as many runs as is fastest.

    Every text of a run is padded to the longest, which takes time and changes no vector beyond rounding; `run_cost` is
    what a further run costs, in tokens, or None if there is to be one run. Raises as Encoder.embed.
    """
    if encoder.packs:
        run_cost = run_cost and _PACKED * run_cost
    ids, lengths = [_filled(one) if encoder.packs else one.ids for one in tokens], [one.length for one in tokens]
    upper = upper_lengths(lengths, run_cost)
    parts: list[Vectors] = []
    places: list[int] = []
    below = 0
    for longest in upper:
        run = [place for place, length in enumerate(lengths) if below < length <= longest]
        parts.append(encoder.embed(np.stack([ids[place][:longest] for place in run])))
        places += run
        below = longest
    vectors = np.concatenate(parts)
    vectors[places] = vectors.copy()
    return vectors


def batching_order(model: Model, tokens: Sequence[Tokens]) -> list[int]:
    """The places of texts in the order in which they are best cut into batches: those that begin alike stand together
    where that is computed once, else those of like length."""
    if model.text_encoder is not None and model.text_encoder.packs:
        return sorted(range(len(tokens)), key=lambda place: tokens[place].ids.tobytes())
    return sorted(range(len(tokens)), key=lambda place: tokens[place].length)


def upper_lengths(lengths: Sequence[int], run_cost: int | None) -> list[int]:
    """The longest length of each run, shortest first, so that all runs together cost least.

    A run costs `run_cost` tokens, and as many as its longest text for each of its texts. None: one run.
    """
    counts = sorted(Counter(lengths).items())
    if run_cost is None:
        return [counts[-1][0]]
    # What the texts of the first n lengths cost at least, and with how many of those lengths before their last run.
    least: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(counts) + 1):
        longest, texts, ways = counts[end - 1][0], 0, list[tuple[int, int]]()
        for begin in reversed(range(end)):
            texts += counts[begin][1]
            ways.append((least[begin][0] + run_cost + texts * longest, begin))
        least.append(min(ways))
    upper, end = list[int](), len(counts)
    while end:
        upper.append(counts[end - 1][0])
        end = least[end][1]
    return upper[::-1]


def _batches(tokens: Sequence[Tokens], order: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Places of texts, in their order, until they have `limit` tokens or the last has passed it."""
    batch, taken = list[int](), 0
    for place in order:
        batch.append(place)
        taken += tokens[place].length
        if taken >= limit:
            yield batch
            batch, taken = [], 0
    if batch:
        yield batch


def _filled(tokens: Tokens) -> NDArray[np.int64]:
    """Its ids, padding replaced by the last of them: what packs computes none of that, and does not know padding."""
    return tokens.ids[np.minimum(np.arange(len(tokens.ids)), tokens.length - 1)]
