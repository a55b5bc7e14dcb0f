"""Device to execution provider to InferenceSession, and proof of it. With encoder.py the only importer of onnxruntime.

onnxruntime falls back to the CPU without an error when a provider cannot load, so what a session really uses is
read back after it is made; a device that was asked for and not obtained ends the start.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnxruntime as ort

from clipsrv.errors import DeviceError, ModelCorruptError
from clipsrv.manifest import TowerSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
#: `mps` is the guide's (PyTorch's) word for Apple's GPU.
ALIASES = {"mps": "coreml"}

#: What `auto` tries, in this order, among the providers the installed onnxruntime was built with.
_AUTO_ORDER = ("cuda", "coreml", "openvino", "cpu")

#: Error relative to the mean distance between images up to which `auto` may take a faster precision.
AUTO_BOUND = 0.02

#: Channels of a token that OpenVINO scales together. Larger groups were slower, smaller ones slower still; its own
#: choice is 32 (docs/precision.md).
_GROUP = 128

#: Threads wait for the next operator awake, for as long as a short one takes, and sleep while nothing runs: falling
#: asleep between operators costs a single caller a tenth of its time, waking for longer takes cores from decoding.
SPINNING = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "50",
    "session.force_spinning_stop": "1",
}

_MACHINE_IS_X86 = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}

_CURES = {
    "cuda": "It needs an NVIDIA GPU, its driver, CUDA and cuDNN, and clipsrv[gpu] instead of clipsrv[cpu].",
    "coreml": "It needs a Mac; onnxruntime from clipsrv[cpu] carries it there.",
    "openvino": "It needs clipsrv[openvino] instead of clipsrv[cpu].",
    "cpu": "Install clipsrv[cpu].",
}


@dataclass(frozen=True)
class DevicePlan:
    """How sessions are to be made. `device` is one of PROVIDERS, never `auto`; `threads` is for one inference."""

    device: str
    threads: int
    precision: str = "fp32"

    @property
    def provider(self) -> str:
        return PROVIDERS[self.device]


def candidate_devices(device: str) -> list[str]:
    """Devices to try for the one asked for, best first. Raises DeviceError if this onnxruntime has none of them."""
    available = set(ort.get_available_providers())
    if device == "auto":
        return [name for name in _AUTO_ORDER if PROVIDERS[name] in available]
    name = ALIASES.get(device, device)
    if PROVIDERS[name] not in available:
        raise DeviceError(
            f"--device {device} is not possible: this onnxruntime {ort.__version__} has no {PROVIDERS[name]}. "
            f"{_CURES[name]} Or use --device cpu."
        )
    return [name]


def choose_precision(
    asked: str,
    device: str,
    tower: TowerSpec,
    *,
    errors: Mapping[str, float] = MappingProxyType({}),
    features: Collection[str] = (),
) -> str:
    """The precision that will run for the one asked for. Raises DeviceError if device, CPU or model cannot give it.

    `errors` are the measured errors of the model's variants relative to the mean distance between images, `features`
    those of the CPU (machine.cpu_features). `auto` is fp16 on CUDA if its error was measured and is at most AUTO_BOUND,
    fp32 everywhere else: what changes vectors more is only ever asked for.
    """
    if asked == "auto":
        half = device == "cuda" and "fp16" in tower.variants and errors.get("fp16", 1.0) <= AUTO_BOUND
        return "fp16" if half else "fp32"
    if asked == "bf16":
        if device != "openvino":
            raise DeviceError("--precision bf16 needs --device openvino (pip install 'clipsrv[openvino]').")
        if not {"avx512_bf16", "amx_bf16"} & set(features):
            raise DeviceError(
                "--precision bf16: this CPU has no bf16 arithmetic and would be slower with it. Use fp32."
            )
        return asked
    if variant(device, asked) not in tower.variants:
        raise DeviceError(
            f"--precision {asked} for --device {device} is not in this model folder "
            f"(it has {', '.join(sorted(tower.variants))}). "
            f"Convert it with python -m conversions NAME --precision {asked}."
        )
    if asked == "int8":
        if device not in {"cpu", "openvino"}:
            raise DeviceError("--precision int8 is made for --device cpu and openvino; use fp16 with cuda.")
        if _MACHINE_IS_X86 and not {"avx512_vnni", "avx_vnni"} & set(features):
            raise DeviceError(
                "--precision int8: this CPU has no VNNI instructions, without which 8-bit sums saturate and give wrong "
                "vectors, or are slower than fp32. Use fp32."
            )
    return asked


def variant(device: str, precision: str) -> str:
    """The name in a tower's `variants` of what runs for a precision: OpenVINO has an int8 graph of its own."""
    return "int8-openvino" if (device, precision) == ("openvino", "int8") else precision


def graph_file(tower: TowerSpec, device: str, precision: str) -> str:
    """The tower's graph; bf16 is computed from fp32 weights, and a tower without the variant runs fp32."""
    return tower.variants.get(variant(device, precision), tower.variants["fp32"])


def in_parts(tower: TowerSpec, plan: DevicePlan) -> bool:
    """Whether a batch is better computed in parts, a thread each, than with threads that share every operator.

    int8's operators are so short that sharing them costs a tenth. fp32's are long, and its weights too large to be held
    by two sessions.
    """
    return plan.threads > 1 and (plan.device, plan.precision) == ("cpu", "int8") and "int8" in tower.variants


def open_session(graph: Path, plan: DevicePlan) -> ort.InferenceSession:
    """A session that provably runs on `plan.device`.

    Raises DeviceError if the provider did not take, ModelCorruptError if the graph cannot be loaded.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The arena stays broken after one failed allocation, and never gives memory back.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    if plan.device == "openvino":
        # It optimises by itself, and does not know the operators that onnxruntime would fuse for it.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for entry, value in SPINNING.items():
        options.add_session_config_entry(entry, value)
    try:
        session = ort.InferenceSession(str(graph), options, providers=[(plan.provider, _provider_options(plan))])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises a dozen unrelated classes, some RuntimeError itself
        if plan.device != "cpu" and not isinstance(error, _GRAPH_ERRORS):
            raise DeviceError(_refusal(plan, _first_line(error))) from None
        raise ModelCorruptError(f"onnxruntime cannot load {graph}: {_first_line(error)}") from None
    if plan.provider not in session.get_providers():
        raise DeviceError(_refusal(plan, f"onnxruntime fell back to {session.get_providers()[0]}"))
    return session


_state = ort.capi.onnxruntime_pybind11_state
_GRAPH_ERRORS = (_state.NoSuchFile, _state.InvalidProtobuf, _state.InvalidGraph)


def _provider_options(plan: DevicePlan) -> Mapping[str, Any]:
    if plan.device == "cuda":
        return {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    if plan.device == "coreml":
        return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}
    if plan.device == "openvino":
        # Without the hint OpenVINO takes bf16 by itself wherever the CPU has it.
        hint = {"bf16": "bf16"}.get(plan.precision, "f32")
        properties = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": plan.threads, "NUM_STREAMS": 1}
        if plan.precision == "int8":
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _GROUP
        return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}
    return {}


def _refusal(plan: DevicePlan, reason: str) -> str:
    return (
        f"--device {plan.device} was asked for and is not there: {reason}. {_CURES[plan.device]} Or use --device cpu."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
