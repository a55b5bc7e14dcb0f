"""Device to provider, and proof of it: what was asked for and is not there is refused, never replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from clipsrv.errors import DeviceError, ModelCorruptError
from clipsrv.manifest import TowerSpec
from clipsrv.models.loading import load_model
from clipsrv.runtime import session as module
from clipsrv.runtime.session import (
    AUTO_BOUND,
    PROVIDERS,
    DevicePlan,
    candidate_devices,
    choose_precision,
    graph_file,
    in_parts,
    open_session,
)
from clipsrv.settings import ModelSettings

TOWER = TowerSpec("x", "y", {"fp32": "a.fp32.onnx", "fp16": "a.fp16.onnx", "int8": "a.int8.onnx"})
FOR_OPENVINO = TowerSpec("x", "y", {"fp32": "a.fp32.onnx", "int8-openvino": "a.int8-openvino.onnx"})
PLAIN = TowerSpec("x", "y", {"fp32": "a.fp32.onnx"})


@pytest.fixture
def built_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """built_with("cuda", "cpu"): this onnxruntime was built with these providers."""

    def set_providers(*devices: str) -> None:
        providers = [PROVIDERS[device] for device in devices]
        monkeypatch.setattr(ort, "get_available_providers", lambda: providers)

    return set_providers


class FallingBack(ort.InferenceSession):
    """What onnxruntime does when a provider it was built with cannot load: the CPU, and not an error."""

    def __init__(self, graph: str, options: ort.SessionOptions, providers: Sequence[Any]) -> None:
        super().__init__(graph, options, providers=["CPUExecutionProvider"])


class Failing:
    """What other builds do in the same case."""

    def __init__(self, graph: str, options: ort.SessionOptions, providers: Sequence[Any]) -> None:
        raise RuntimeError("CUDA failure 35: driver version is insufficient\nat /secret/path.cc:12")


# --- devices ---


@pytest.mark.parametrize("device", ["cuda", "coreml", "mps", "openvino"])
def test_a_device_this_onnxruntime_was_not_built_for_is_refused_with_the_cure(built_with: Any, device: str) -> None:
    built_with("cpu")
    with pytest.raises(DeviceError, match=f"--device {device} is not possible.* It needs .* Or use --device cpu"):
        candidate_devices(device)


def test_mps_is_the_guides_word_for_coreml(built_with: Any) -> None:
    built_with("coreml", "cpu")
    assert candidate_devices("mps") == candidate_devices("coreml") == ["coreml"]


def test_auto_tries_the_fastest_first_and_the_cpu_last(built_with: Any) -> None:
    built_with("cpu", "openvino", "cuda")
    assert candidate_devices("auto") == ["cuda", "openvino", "cpu"]
    built_with("cpu", "coreml")
    assert candidate_devices("auto") == ["coreml", "cpu"]


@pytest.mark.parametrize("session", [FallingBack, Failing])
def test_a_device_that_was_asked_for_and_not_obtained_ends_the_start(
    built_with: Any, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, session: type
) -> None:
    built_with("cuda", "cpu")
    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(DeviceError, match="--device cuda was asked for and is not there") as caught:
        load_model(tiny_model, ModelSettings(device="cuda", threads=1))
    assert "\n" not in caught.value.message
    assert "It needs an NVIDIA GPU" in caught.value.message


def test_only_auto_goes_on_to_the_next_device(
    built_with: Any, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    built_with("cuda", "cpu")
    monkeypatch.setattr(ort, "InferenceSession", FallingBack)
    model = load_model(tiny_model, ModelSettings(device="auto", threads=1))
    assert model.device == "cpu"


def test_auto_that_gets_no_device_says_why_of_each(
    built_with: Any, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
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


# --- precision ---


@pytest.mark.parametrize(
    ("device", "tower", "errors", "chosen"),
    [
        ("cpu", TOWER, {"fp16": 0.0}, "fp32"),
        ("cuda", TOWER, {"fp16": AUTO_BOUND}, "fp16"),
        ("cuda", TOWER, {"fp16": 2 * AUTO_BOUND}, "fp32"),
        ("cuda", TOWER, {}, "fp32"),
        ("cuda", PLAIN, {"fp16": 0.0}, "fp32"),
        ("openvino", TOWER, {"fp16": 0.0}, "fp32"),
        ("coreml", TOWER, {"fp16": 0.0}, "fp32"),
    ],
)
def test_auto_never_changes_vectors_noticeably(
    device: str, tower: TowerSpec, errors: dict[str, float], chosen: str
) -> None:
    assert choose_precision("auto", device, tower, errors=errors) == chosen


@pytest.mark.parametrize(
    ("asked", "device", "features", "said"),
    [
        ("bf16", "cpu", ["amx_bf16"], "needs --device openvino"),
        ("bf16", "openvino", ["avx2"], "no bf16 arithmetic"),
        ("fp16", "cpu", [], r"not in this model folder \(it has fp32\).*--precision fp16"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(asked: str, device: str, features: list[str], said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        choose_precision(asked, device, PLAIN, features=features)


def test_8_bits_need_instructions_that_do_not_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MACHINE_IS_X86", True)
    with pytest.raises(DeviceError, match="no VNNI"):
        choose_precision("int8", "cpu", TOWER, features=["avx2"])
    assert choose_precision("int8", "cpu", TOWER, features=["avx_vnni"]) == "int8"
    with pytest.raises(DeviceError, match="no VNNI"):
        choose_precision("int8", "openvino", FOR_OPENVINO, features=["avx2", "avx512_bf16"])
    assert choose_precision("int8", "openvino", FOR_OPENVINO, features=["avx512_vnni"]) == "int8"
    with pytest.raises(DeviceError, match="made for --device cpu and openvino"):
        choose_precision("int8", "cuda", TOWER)
    monkeypatch.setattr(module, "_MACHINE_IS_X86", False)
    assert choose_precision("int8", "cpu", TOWER) == "int8"


def test_what_is_asked_for_and_there_is_taken() -> None:
    assert choose_precision("fp16", "cpu", TOWER) == "fp16"
    assert choose_precision("bf16", "openvino", PLAIN, features=["amx_bf16"]) == "bf16"


def test_bf16_is_computed_from_the_fp32_graph() -> None:
    assert graph_file(TOWER, "openvino", "bf16") == "a.fp32.onnx"
    assert graph_file(TOWER, "cpu", "int8") == "a.int8.onnx"
    assert graph_file(PLAIN, "cuda", "fp16") == "a.fp32.onnx"


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        (DevicePlan("cpu", 2, "int8"), True),
        (DevicePlan("cpu", 1, "int8"), False),
        (DevicePlan("cpu", 2, "fp32"), False),
        (DevicePlan("openvino", 2, "int8"), False),
    ],
)
def test_only_int8_on_the_cpu_computes_batches_in_parts_a_thread_each(plan: DevicePlan, parts: bool) -> None:
    assert in_parts(TOWER, plan) == parts
    assert not in_parts(TowerSpec("x", "y", {"fp32": "text.fp32.onnx"}), plan)


def test_int8_is_another_graph_for_openvino() -> None:
    assert graph_file(FOR_OPENVINO, "openvino", "int8") == "a.int8-openvino.onnx"
    with pytest.raises(DeviceError, match=r"--device openvino is not in this model folder.*--precision int8"):
        choose_precision("int8", "openvino", TOWER, features=["avx512_vnni"])
    with pytest.raises(DeviceError, match=r"--device cpu is not in this model folder"):
        choose_precision("int8", "cpu", FOR_OPENVINO, features=["avx512_vnni"])


# --- sessions ---


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
    options, (provider, settings) = seen[-1]
    assert provider == "OpenVINOExecutionProvider"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert json.loads(settings["load_config"])["CPU"] == {"INFERENCE_NUM_THREADS": 3, "NUM_STREAMS": 1, **told}


@pytest.mark.parametrize("device", ["cuda", "coreml"])
def test_other_devices_get_their_own_options(seen: list[Any], tiny_model: Path, device: str) -> None:
    open_session(tiny_model / "vision.fp32.onnx", DevicePlan(device, 1))
    provider, settings = seen[-1][1]
    assert provider == PROVIDERS[device]
    assert settings


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
