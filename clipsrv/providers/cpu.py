"""onnxruntime's own kernels, on the CPU."""

from __future__ import annotations

from clipsrv.providers.instructions import VNNI
from clipsrv.providers.provider import Arithmetic, Provider, same

CPU = Provider(
    device="cpu",
    onnx_name="CPUExecutionProvider",
    packages=("onnxruntime",),
    extra="cpu",
    auto_rank=3,
    precisions={
        "fp32": same("fp32"),
        "fp16": same("fp16"),
        # int8's operators are so short that sharing them costs a tenth. fp32's are long, and its weights too large to
        # be held by two sessions.
        "int8": Arithmetic("int8", "int8", needs=VNNI, in_parts=True),
    },
    streams=True,
    run_cost=32,
)
