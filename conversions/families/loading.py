"""Loading a model of transformers so that no weight is missing, left over or made up. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from transformers import PreTrainedModel

from conversions.errors import CheckpointError

M = TypeVar("M", bound=PreTrainedModel)

#: Buffers that older checkpoints saved and newer transformers compute.
_HARMLESS = ".position_ids"


def load_model(kind: type[M], folder: Path, *, safetensors: bool) -> M:
    """The checkpoint's model in float32, ready to run.

    Raises CheckpointError if the weights cannot be read, or do not fill every parameter: transformers would leave
    the missing ones random.
    """
    try:
        model, loading = cast(Any, kind).from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, use_safetensors=safetensors, output_loading_info=True
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"Cannot load the weights of {folder}: {reason[:240]}") from error
    strange = [key for key in loading["unexpected_keys"] if not key.endswith(_HARMLESS)]
    for what, keys in (("missing", loading["missing_keys"]), ("of another shape", loading["mismatched_keys"])):
        if keys:
            raise CheckpointError(f"{folder}: {len(keys)} weights are {what}, {sorted(map(str, keys))[0]} first.")
    if strange:
        name = kind.__name__.removesuffix("Model")
        raise CheckpointError(f"{folder}: {len(strange)} weights do not belong to {name}, {sorted(strange)[0]}.")
    return cast(M, model.train(False))
