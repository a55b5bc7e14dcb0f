"""Texts to vectors where nobody else waits: in batches, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clipsrv.errors import TextTowerMissingError
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors


class EmbeddedTexts(NamedTuple):
    """`vectors` (n, dimensions), float32, of unit length; `truncated` are the indices of texts cut short."""

    vectors: Vectors
    truncated: tuple[int, ...]


def embed_texts(model: Model, texts: Sequence[str], batch_size: int) -> EmbeddedTexts:
    """Raises InvalidTextError, TextTowerMissingError, EngineError."""
    encoder, tokenizer = model.text_encoder, model.tokenizer
    if encoder is None or tokenizer is None:
        raise TextTowerMissingError(f"{model.manifest.name} has no text tower: it embeds images only.")
    vectors = np.empty((len(texts), model.manifest.dimensions), np.float32)
    truncated: list[int] = []
    for at in range(0, len(texts), batch_size):
        tokens = [tokenizer.encode(text) for text in texts[at : at + batch_size]]
        truncated += [at + place for place, one in enumerate(tokens) if one.truncated]
        longest = max(one.length for one in tokens)
        vectors[at : at + len(tokens)] = encoder.embed(np.stack([one.ids[:longest] for one in tokens]))
    return EmbeddedTexts(vectors, tuple(truncated))
