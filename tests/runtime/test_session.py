"""A session runs where it was planned to, or the start ends: onnxruntime falls back to the CPU without an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from clipsrv.errors import DeviceError, ModelCorruptError
from clipsrv.models.loading import load_model
from clipsrv.providers.provider import DevicePlan
from clipsrv.providers.table import provider
from clipsrv.runtime.session import open_session
from clipsrv.settings import ModelSettings
from tests.runtime.conftest import BuiltWith


class FallingBack(ort.InferenceSession):
    """What onnxruntime does when a provider it was built with cannot load: the CPU, and not an error."""

    def __init__(self, graph: str, options: ort.SessionOptions, providers: Sequence[Any]) -> None:
        super().__init__(graph, options, providers=["CPUExecutionProvider"])


class Failing:
    """What other builds do in the same case."""

    def __init__(self, graph: str, options: ort.SessionOptions, providers: Sequence[Any]) -> None:
        raise RuntimeError("CUDA failure 35: driver version is insufficient\nat /secret/path.cc:12")


@pytest.mark.parametrize("session", [FallingBack, Failing])
def test_a_device_that_was_asked_for_and_not_obtained_ends_the_start(
    built_with: BuiltWith, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, session: type
) -> None:
    built_with("cuda", "cpu")
    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(DeviceError, match="--device cuda was asked for and is not there") as caught:
        load_model(tiny_model, ModelSettings(device="cuda", threads=1))
    assert "\n" not in caught.value.message
    assert "It needs an NVIDIA GPU" in caught.value.message


def test_only_auto_goes_on_to_the_next_device(
    built_with: BuiltWith, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    built_with("cuda", "cpu")
    monkeypatch.setattr(ort, "InferenceSession", FallingBack)
    model = load_model(tiny_model, ModelSettings(device="auto", threads=1))
    assert model.device == "cpu"


def test_auto_that_gets_no_device_says_why_of_each(
    built_with: BuiltWith, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    built_with("cuda", "coreml")
    monkeypatch.setattr(ort, "InferenceSession", FallingBack)
    with pytest.raises(DeviceError, match=r"--device cuda .*--device coreml"):
        load_model(tiny_model, ModelSettings(device="auto", threads=1))
    built_with()
    with pytest.raises(DeviceError, match="no device that clipsrv knows"):
        load_model(tiny_model, ModelSettings(device="auto", threads=1))


def test_this_onnxruntime_has_no_cuda_and_says_so(tiny_model: Path) -> None:
    """Nothing replaced here: the onnxruntime of the cpu extra."""
    with pytest.raises(DeviceError, match="has no CUDAExecutionProvider"):
        load_model(tiny_model, ModelSettings(device="cuda", threads=1))


class Recording(ort.InferenceSession):
    seen: list[tuple[ort.SessionOptions, Any]] = []  # noqa: RUF012 - a fake, emptied by its fixture

    def __init__(self, graph: str, options: ort.SessionOptions, providers: Sequence[Any]) -> None:
        self.seen.append((options, providers[0]))
        super().__init__(graph, ort.SessionOptions(), providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return [self.seen[-1][1][0], "CPUExecutionProvider"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ort.SessionOptions, Any]]:
    monkeypatch.setattr(ort, "InferenceSession", Recording)
    monkeypatch.setattr(Recording, "seen", [])
    return Recording.seen


def test_threads_are_explicit_and_the_arena_is_off(tiny_model: Path) -> None:
    options = open_session(tiny_model / "vision.fp32.onnx", DevicePlan("cpu", 3)).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.enable_cpu_mem_arena is False
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == "50"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(
    ("precision", "told"),
    [
        ("bf16", {"INFERENCE_PRECISION_HINT": "bf16"}),
        ("fp32", {"INFERENCE_PRECISION_HINT": "f32"}),
        ("int8", {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}),
    ],
)
def test_openvino_is_told_the_precision_and_never_takes_bf16_by_itself(
    seen: list[Any], tiny_model: Path, precision: str, told: dict[str, object]
) -> None:
    open_session(tiny_model / "vision.fp32.onnx", DevicePlan("openvino", 3, precision))
    options, (name, settings) = seen[-1]
    assert name == "OpenVINOExecutionProvider"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert json.loads(settings["load_config"])["CPU"] == {"INFERENCE_NUM_THREADS": 3, "NUM_STREAMS": 1, **told}


@pytest.mark.parametrize("device", ["cuda", "coreml"])
def test_other_devices_get_their_own_options(seen: list[Any], tiny_model: Path, device: str) -> None:
    open_session(tiny_model / "vision.fp32.onnx", DevicePlan(device, 1))
    name, settings = seen[-1][1]
    assert name == provider(device).onnx_name
    assert settings


def test_fp32_on_a_gpu_is_not_rounded_to_tf32(seen: list[Any], tiny_model: Path) -> None:
    """onnxruntime would do so by itself."""
    open_session(tiny_model / "vision.fp32.onnx", DevicePlan("cuda", 1))
    assert seen[-1][1][1]["use_tf32"] == "0"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_graph_that_cannot_be_read_is_the_models_fault_on_any_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, content: bytes | None
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", FallingBack)
    if content is not None:
        (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ModelCorruptError, match=r"onnxruntime cannot load .*broken\.onnx"):
        open_session(tmp_path / "broken.onnx", DevicePlan(device, 1))
