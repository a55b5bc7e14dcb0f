"""The original: the checkpoint in PyTorch with transformers' own processors. What a conversion is measured against.

Imports torch and transformers, and uses nothing of clipsrv: two roads to one vector must not share a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast
from transformers.image_utils import load_image

from conversions.checkpoint import Checkpoint
from conversions.errors import CheckpointError
from conversions.golden import GoldenImage

_BATCH = 4
#: Buffers that older checkpoints saved and newer transformers compute.
_HARMLESS = ".position_ids"


@dataclass(frozen=True, eq=False)
class Originals:
    """The reference's answers. `crops` uint8 (3, S, S) each, `pixels` float32 (n, 3, S, S), embeddings of unit length.

    `token_ids` holds one list per text, with begin and end, without padding.
    """

    crops: NDArray[np.uint8]
    pixels: NDArray[np.float32]
    image_vectors: NDArray[np.float32]
    token_ids: list[list[int]]
    text_vectors: NDArray[np.float32]


def load_original(checkpoint: Checkpoint) -> CLIPModel:
    """The checkpoint's CLIPModel in float32, ready to run.

    Raises CheckpointError if the weights cannot be read, or do not fill every parameter: transformers would leave
    the missing ones random.
    """
    try:
        model, loading = CLIPModel.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            dtype=torch.float32,
            use_safetensors=".safetensors" in checkpoint.weights[0].suffixes,
            output_loading_info=True,
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"Cannot load the weights of {checkpoint.folder}: {reason[:240]}") from error
    strange = [key for key in loading["unexpected_keys"] if not key.endswith(_HARMLESS)]
    for what, keys in (("missing", loading["missing_keys"]), ("of another shape", loading["mismatched_keys"])):
        if keys:
            raise CheckpointError(
                f"{checkpoint.folder}: {len(keys)} weights are {what}, {sorted(map(str, keys))[0]} first."
            )
    if strange:
        raise CheckpointError(
            f"{checkpoint.folder}: {len(strange)} weights do not belong to CLIP, {sorted(strange)[0]}."
        )
    return cast(CLIPModel, model.train(False))


def compute_originals(
    model: CLIPModel, checkpoint: Checkpoint, images: Sequence[GoldenImage], texts: Sequence[str]
) -> Originals:
    """Runs the reference on `images` and `texts`."""
    processor = CLIPImageProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
    opened = [load_image(Image.open(BytesIO(image.blob))) for image in images]
    # Left to guess where the channels are, it takes an image 1 or 3 pixels high for one with channels first.
    crops = processor(
        opened, do_rescale=False, do_normalize=False, input_data_format="channels_last", return_tensors="np"
    )["pixel_values"]
    pixels = processor(
        list(crops), do_resize=False, do_center_crop=False, input_data_format="channels_first", return_tensors="pt"
    )["pixel_values"]
    tokenizer = load_tokenizer(checkpoint)
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, max_length=checkpoint.context_length, return_tensors="pt"
    )
    with torch.inference_mode():
        image_features = torch.cat([model.get_image_features(pixel_values=part) for part in pixels.split(_BATCH)])
        text_features = model.get_text_features(**tokens)
    lengths = tokens["attention_mask"].sum(dim=1).tolist()
    return Originals(
        crops=np.asarray(crops, np.uint8),
        pixels=pixels.numpy(),
        image_vectors=_unit(image_features),
        token_ids=[ids[:length].tolist() for ids, length in zip(tokens["input_ids"], lengths, strict=True)],
        text_vectors=_unit(text_features),
    )


def load_tokenizer(checkpoint: Checkpoint) -> CLIPTokenizerFast:
    return cast(CLIPTokenizerFast, CLIPTokenizerFast.from_pretrained(checkpoint.folder, local_files_only=True))


def _unit(features: torch.Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (features / features.norm(dim=-1, keepdim=True)).numpy()
    return unit
