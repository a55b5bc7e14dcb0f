"""The original's answers: what a conversion is measured against.

Uses nothing of clipsrv: two roads to one vector must not share a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.image_utils import load_image

from conversions.families.family import Original
from conversions.golden import GoldenImage

_BATCH = 4


@dataclass(frozen=True, eq=False)
class Originals:
    """The reference's answers. `crops` uint8 (n, 3, S, S), `pixels` float32 (n, 3, S, S), vectors of unit length.

    `token_ids` holds one list per text: what the text tower must be given of it.
    """

    crops: NDArray[np.uint8]
    pixels: NDArray[np.float32]
    image_vectors: NDArray[np.float32]
    token_ids: list[list[int]]
    text_vectors: NDArray[np.float32]


def compute_originals(original: Original, images: Sequence[GoldenImage], texts: Sequence[str]) -> Originals:
    """Runs the reference on `images` and `texts`."""
    crops = original.crops([load_image(Image.open(BytesIO(image.blob))) for image in images])
    pixels = original.pixels(crops)
    with torch.inference_mode():
        image_features = torch.cat([original.image_features(part) for part in pixels.split(_BATCH)])
        text_features = original.text_features(texts)
    return Originals(
        crops=np.asarray(crops, np.uint8),
        pixels=pixels.numpy(),
        image_vectors=_unit(image_features),
        token_ids=original.token_ids(texts),
        text_vectors=_unit(text_features),
    )


def _unit(features: torch.Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (features / features.norm(dim=-1, keepdim=True)).numpy()
    return unit
