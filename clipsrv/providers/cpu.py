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
        # Threads that share operators wait for one another: where one gives way to the server's event loop, all do.
        # Short parts are slower, for each reads all weights (docs/performance.md).
        "fp32": Arithmetic("fp32", "fp32", text_rows=96),
        "fp16": same("fp16"),
        # int8's operators are so short that sharing them costs a tenth. fp32's are long.
        "int8": Arithmetic("int8", "int8", needs=VNNI, in_parts=True),
    },
    streams=True,
    run_cost=32,
)
