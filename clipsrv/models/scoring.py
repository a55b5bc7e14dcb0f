"""Zero-shot classification: labels to the texts that stand for them, likenesses to scores as the model was trained.

Pure functions: knows nothing of images, of how vectors are made, or of who asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import InvalidLabelsError
from clipsrv.manifest import ModelManifest
from clipsrv.runtime.vectors import Vectors
from clipsrv.specs import ScoringSpec

#: What stands for a label where nothing else is asked for: that of transformers' zero-shot-image-classification.
TEMPLATE = "This is a photo of {}."
#: Characters of a label, and of a template: more than any model reads.
LONGEST_LABEL = 1000
_PLACE = "{}"

#: How CLIP scores where a manifest of format 1 does not say: 100 is where its training stops the scale (Radford et al.
#: 2021, 2.5), and what every checkpoint of OpenAI's has reached.
_CLIP = ScoringSpec("softmax", 100.0)

Scores = NDArray[np.float64]


class LabelScore(NamedTuple):
    """`similarity` is the cosine of image and label, `score` what the model's training makes of it, from 0 to 1."""

    label: str
    score: float
    similarity: float


@dataclass(frozen=True)
class Labels:
    """What an image may be. `template` holds {} once: there a label stands in the text that the model reads.

    Raises InvalidLabelsError if there is no label, an empty one, one twice, or a template or label that is none.
    """

    labels: tuple[str, ...]
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        if self.template.count(_PLACE) != 1:
            raise InvalidLabelsError(f"The template must hold {_PLACE} once, where a label is to stand.")
        if not self.labels:
            raise InvalidLabelsError("There is no label; give at least one.")
        if not all(map(str.strip, self.labels)):
            raise InvalidLabelsError("A label is empty.")
        if max(map(len, (self.template, *self.labels))) > LONGEST_LABEL:
            raise InvalidLabelsError(
                f"A label or the template has more than {LONGEST_LABEL:,} characters.", limit=LONGEST_LABEL
            )
        label, count = Counter(self.labels).most_common(1)[0]
        if count > 1:
            raise InvalidLabelsError(f"The label {label[:40]!r} is there more than once.")

    @property
    def prompts(self) -> list[str]:
        """The texts that stand for the labels, in their order."""
        return [self.template.replace(_PLACE, label) for label in self.labels]


def scoring_of(manifest: ModelManifest) -> ScoringSpec:
    """How the model was trained to score; CLIP's own way where its manifest does not say."""
    return manifest.scoring or _CLIP


def similarities(images: Vectors, prompts: Vectors) -> Scores:
    """Cosines (n, labels) of unit vectors (n, dimensions) and (labels, dimensions)."""
    found: Scores = images.astype(np.float64) @ prompts.astype(np.float64).T
    return found


def scores(cosines: Scores, scoring: ScoringSpec) -> Scores:
    """Scores (n, labels): of `scale` times a cosine plus `bias` the softmax over the labels of an image (CLIP), or the
    sigmoid of each by itself (Zhai et al. 2023, SigLIP)."""
    logits = scoring.scale * cosines + scoring.bias
    if scoring.kind == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    halves = np.exp(-np.abs(logits))  # never overflows
    return np.asarray(np.where(logits >= 0, 1.0, halves) / (1.0 + halves))


def ranked(labels: Sequence[str], cosines: Scores, scoring: ScoringSpec, top: int | None = None) -> list[LabelScore]:
    """The labels of one image, whose cosines are (labels,), or the `top` of them: best first, equals in the order
    given."""
    rated = scores(cosines[None], scoring)[0]
    order = np.argsort(-scoring.scale * cosines, kind="stable")[:top]  # also where scores are too small to differ
    return [LabelScore(labels[place], float(rated[place]), float(cosines[place])) for place in order]
