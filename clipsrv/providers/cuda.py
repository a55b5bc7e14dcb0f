"""NVIDIA's GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsrv.providers.provider import DevicePlan, Provider, same


def _options(plan: DevicePlan) -> Mapping[str, Any]:
    # TF32, which onnxruntime takes by itself, rounds fp32's factors to 11 bits: vectors would be fp32's in name only.
    return {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


CUDA = Provider(
    device="cuda",
    onnx_name="CUDAExecutionProvider",
    packages=("onnxruntime-gpu",),
    extra="gpu",
    needs="an NVIDIA GPU, its driver",
    auto_rank=0,
    precisions={"fp32": same("fp32"), "fp16": same("fp16", auto=True)},
    options=_options,
    library="libonnxruntime_providers_cuda.so",
    recording={"enable_cuda_graph": "1"},
)
