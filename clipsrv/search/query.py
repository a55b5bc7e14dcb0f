"""Texts and images to the one vector that is searched for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipsrv.documents import open_file
from clipsrv.errors import ConfigError, ImageError, InferenceFailedError, TextTowerMissingError
from clipsrv.models.known import in_words
from clipsrv.models.model import Model
from clipsrv.models.texts import embed_texts
from clipsrv.runtime.vectors import Vectors, unit
from clipsrv.settings import ImageLimits

_BATCH = 8


@dataclass(frozen=True)
class Query:
    """`vector` is (dimensions,), of unit length; `warnings` say what of the texts the model did not read."""

    vector: Vectors
    warnings: tuple[str, ...]


def embed_query(model: Model, texts: Sequence[str], images: Sequence[str], limits: ImageLimits) -> Query:
    """The mean of the vectors of all that is asked for, of unit length.

    Raises ConfigError if a file of `images` cannot be read or two things asked for cancel each other out,
    TextTowerMissingError, InvalidTextError, ImageError that names its file, EngineError.
    """
    rows = [_embed_image(model, name, limits) for name in images]
    warnings: tuple[str, ...] = ()
    if texts:
        if model.text_encoder is None:
            raise TextTowerMissingError(f"{model.manifest.name} has no text tower: search for an image (--image).")
        read = embed_texts(model, texts, _BATCH)
        rows += list(read.vectors)
        warnings = tuple(_warnings(model, texts, read.truncated))
    try:
        (vector,) = unit(np.mean([rows], axis=1, dtype=np.float64))
    except InferenceFailedError:
        raise ConfigError("What is asked for cancels itself out: there is nothing that is like all of it.") from None
    return Query(vector, warnings)


def _embed_image(model: Model, name: str, limits: ImageLimits) -> Vectors:
    try:
        with open_file(Path(name)) as file:
            blob = file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"Cannot read --image {name}: {reason}.") from None
    try:
        pixels = model.read_image(blob, limits)
    except ImageError as error:
        raise type(error)(f"--image {name}: {error.message}", **error.details) from None
    vector: Vectors = model.image_encoder.embed(pixels[None])[0]
    return vector


def _warnings(model: Model, texts: Sequence[str], truncated: Sequence[int]) -> Iterator[str]:
    for place in truncated:
        yield f"Of the text {texts[place][:40]!r}... only the beginning was read: it is longer than the model reads."
    for text in texts:
        if model.is_foreign(text):
            yield (
                f"{model.manifest.name} knows {in_words(model.languages)}, and reads no letter of {text[:40]!r}: "
                "what is found means little."
            )
