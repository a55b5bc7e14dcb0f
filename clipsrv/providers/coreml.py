"""Apple's GPU and neural engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsrv.providers.provider import DevicePlan, Provider, same


def _options(plan: DevicePlan) -> Mapping[str, Any]:
    return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}


COREML = Provider(
    device="coreml",
    onnx_name="CoreMLExecutionProvider",
    packages=("onnxruntime-silicon",),
    extra="cpu",
    needs="a Mac",
    auto_rank=1,
    precisions={"fp32": same("fp32"), "fp16": same("fp16")},
    options=_options,
    aliases=("mps",),  # the guide's (PyTorch's) word for Apple's GPU
)
