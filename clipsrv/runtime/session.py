"""A plan to an InferenceSession, and proof that it runs where it was planned to.

onnxruntime falls back to the CPU without an error when a provider cannot load, so what a session really uses is
read back after it is made; a device that was asked for and not obtained ends the start.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from clipsrv.errors import DeviceError, ModelCorruptError
from clipsrv.providers.cpu import CPU
from clipsrv.providers.provider import DevicePlan, Provider
from clipsrv.providers.table import OTHERWISE, cure, provider
from clipsrv.runtime.libraries import missing, preload

#: Threads wait for the next operator awake, for as long as a short one takes, and sleep while nothing runs: falling
#: asleep between operators costs a single caller a tenth of its time, waking for longer takes cores from decoding.
SPINNING = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "50",
    "session.force_spinning_stop": "1",
}


def open_session(
    graph: Path, plan: DevicePlan, *, packed: bool = True, recording: bool = False
) -> ort.InferenceSession:
    """A session that provably runs on `plan.device`. Weights that are not `packed` stay in their file: that is opened
    sooner, in less memory, and computes somewhat slower. One that is `recording` is for a RecordedSession.

    Raises DeviceError if the provider did not take, ModelCorruptError if the graph cannot be loaded.
    """
    row, options = provider(plan.device), ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The arena stays broken after one failed allocation, and never gives memory back.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    if row.optimises_itself:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for entry, value in SPINNING.items():
        options.add_session_config_entry(entry, value)
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if row.library:
        preload()
    try:
        given = {**row.options(plan), **(row.recording if recording else {})}
        session = ort.InferenceSession(str(graph), options, providers=[(row.onnx_name, given)])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises a dozen unrelated classes, some RuntimeError itself
        if row is not CPU and not isinstance(error, _GRAPH_ERRORS):
            raise DeviceError(_refusal(row, first_line(error))) from None
        raise ModelCorruptError(f"onnxruntime cannot load {graph}: {first_line(error)}") from None
    if row.onnx_name not in session.get_providers():
        why = f", for {reason}" if row.library and (reason := missing(row.library)) else ""
        raise DeviceError(_refusal(row, f"onnxruntime fell back to {session.get_providers()[0]}{why}"))
    return session


_state = ort.capi.onnxruntime_pybind11_state
_GRAPH_ERRORS = (_state.NoSuchFile, _state.InvalidProtobuf, _state.InvalidGraph)


def _refusal(row: Provider, reason: str) -> str:
    return f"--device {row.device} was asked for and is not there: {reason}. {cure(row)} {OTHERWISE}"


def first_line(error: Exception) -> str:
    """What onnxruntime says, without its stack; the name of the error if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
