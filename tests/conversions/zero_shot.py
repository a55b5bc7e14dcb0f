"""Scores of a converted model beside those of transformers' own zero-shot pipeline on its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor, AutoTokenizer, pipeline

from clipsrv.models.loading import load_model
from clipsrv.models.scoring import Labels, LabelScore, ranked, scoring_of, similarities
from clipsrv.models.texts import embed_texts
from clipsrv.settings import ImageLimits, ModelSettings
from tests.support.photos import encode, opened

PHOTOS = ("china.jpg", "flower.jpg", "astronaut.png")
# In lower case: the pinned transformers forgets to lower the texts of a SigLIP 2.
LABELS = ("a temple", "a flower", "an astronaut", "dog", "赤いドレス")


def worst_difference(checkpoint: Path, folder: Path, template: str) -> float:
    """Between two scores of an image and a label. Fails if labels all score the same, which would prove nothing."""
    found, worst = _ours(folder, Labels(LABELS, template)), 0.0
    for theirs, mine in zip(_theirs(checkpoint, template), found, strict=True):
        assert np.ptp([one.score for one in mine]) > 1e-6
        worst = max(worst, *(abs(one.score - theirs[one.label]) for one in mine))
    return worst


def _ours(folder: Path, labels: Labels) -> list[list[LabelScore]]:
    model = load_model(folder, ModelSettings(device="cpu", precision="fp32", threads=1))
    pixels = np.stack([model.read_image(encode(opened(name)), ImageLimits()) for name in PHOTOS])
    cosines = similarities(model.image_encoder.embed(pixels), embed_texts(model, labels.prompts, 3).vectors)
    model.close()
    return [ranked(labels.labels, row, scoring_of(model.manifest)) for row in cosines]


def _theirs(checkpoint: Path, template: str) -> list[dict[str, float]]:
    # The tokenizer as the published SigLIPs' own config has it, and the image processor that resizes by Pillow.
    as_published = {"padding_side": "right", "model_input_names": ["input_ids"]}
    settings = as_published if "siglip" in checkpoint.name else {}
    reference: Any = pipeline(
        "zero-shot-image-classification",
        model=str(checkpoint),
        device="cpu",
        tokenizer=AutoTokenizer.from_pretrained(checkpoint, **settings),
        image_processor=AutoImageProcessor.from_pretrained(checkpoint, use_fast=False),
    )
    context = {"max_length": reference.model.config.text_config.max_position_embeddings, "truncation": True}
    asked = {"candidate_labels": list(LABELS), "hypothesis_template": template, "tokenizer_kwargs": context}
    answers = reference([opened(name) for name in PHOTOS], **asked)
    return [{one["label"]: one["score"] for one in answer} for answer in answers]
