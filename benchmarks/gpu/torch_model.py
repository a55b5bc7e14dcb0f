"""The same checkpoint in PyTorch on the same device: eager or compiled, from the computer's memory and back to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionModelWithProjection

from benchmarks.gpu.graphs import Compute
from benchmarks.gpu.setting import Setting


def torch_images(
    setting: Setting, model: str, precision: str, *, tf32: bool = False, compiled: bool = False
) -> Compute:
    """Unit vectors. TF32 is switched for the whole process, as PyTorch has it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    tower: Any = CLIPVisionModelWithProjection.from_pretrained(setting.checkpoint(model)).eval()
    tower = tower.to(setting.device, dtype)

    def vectors(pixels: torch.Tensor) -> torch.Tensor:
        features = tower(pixel_values=pixels).image_embeds.float()
        return features / features.norm(dim=-1, keepdim=True)

    run: Any = torch.compile(vectors, mode="reduce-overhead", dynamic=False) if compiled else vectors

    def compute(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            result: NDArray[np.float32] = run(torch.from_numpy(batch).to(setting.device, dtype)).cpu().numpy()
        return result

    return compute
