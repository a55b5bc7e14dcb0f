"""Intel's OpenVINO, on the CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clipsrv.providers.instructions import BF16, VNNI
from clipsrv.providers.provider import Arithmetic, DevicePlan, Provider, same

#: Channels of a token that are scaled together. Larger groups were slower, smaller ones slower still; OpenVINO's own
#: choice is 32 (docs/precision.md).
_GROUP = 128


def _options(plan: DevicePlan) -> Mapping[str, Any]:
    # Without the hint OpenVINO takes bf16 by itself wherever the CPU has it.
    hint = {"bf16": "bf16"}.get(plan.precision, "f32")
    properties = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": plan.threads, "NUM_STREAMS": 1}
    if plan.precision == "int8":
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _GROUP
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


OPENVINO = Provider(
    device="openvino",
    onnx_name="OpenVINOExecutionProvider",
    packages=("onnxruntime-openvino",),
    extra="openvino",
    auto_rank=2,
    precisions={
        "fp32": same("fp32"),
        "bf16": Arithmetic("bf16", "fp32", needs=BF16),  # from the same weights
        "fp16": same("fp16"),
        "int8": Arithmetic("int8-openvino", "int8-openvino", needs=VNNI),  # an int8 graph of its own
    },
    options=_options,
    optimises_itself=True,
)
