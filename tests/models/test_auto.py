"""`auto` takes a device that agrees with the CPU and is faster, else the next, and says what it measured.

The devices are the CPU under another name, with a fault planted and a clock of their own: no test depends on speed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime import InferenceSession

from clipsrv.errors import DeviceError, ModelCorruptError
from clipsrv.models.loading import load_model
from clipsrv.runtime import trial
from clipsrv.runtime.trial import Trial, photographic
from clipsrv.settings import ModelSettings
from tests.runtime.conftest import BuiltWith, built_with

__all__ = ["built_with"]

AUTO = ModelSettings(device="auto", threads=1)
CPU, CUDA, OPENVINO = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "OpenVINO"))


class Clock:
    """Seconds that pass when somebody computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Devices:
    """In the place of onnxruntime's sessions: a run's seconds on each provider, and what it does to vectors."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.clock, self.seconds = Clock(), seconds
        self.on_packed_cpu = seconds[CPU]
        self.changes: dict[str, Callable[[Any], Any]] = {}
        self.opened: list[tuple[str, ort.SessionOptions]] = []

    def open(self, graph: str, options: ort.SessionOptions, providers: Sequence[Any]) -> Any:
        devices, name = self, providers[0][0]
        packed = name == CPU and "session.disable_prepacking" not in entries(options)

        class Session(InferenceSession):
            def get_providers(self) -> list[str]:
                return [name, CPU]

            def run(self, outputs: Sequence[str], inputs: Mapping[str, Any], *more: Any) -> Any:
                devices.clock.now += devices.on_packed_cpu if packed else devices.seconds[name]
                return [devices.changes.get(name, lambda same: same)(one) for one in super().run(outputs, inputs)]

        self.opened.append((name, options))
        return Session(graph, options, providers=[CPU])


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, built_with: BuiltWith) -> Devices:
    """CUDA and OpenVINO beside the CPU; CUDA is the fastest."""
    built_with("cuda", "openvino", "cpu")
    planted = Devices({CUDA: 0.001, OPENVINO: 0.02, CPU: 0.1})
    monkeypatch.setattr(ort, "InferenceSession", planted.open)
    monkeypatch.setattr(trial, "perf_counter", planted.clock)
    monkeypatch.setattr("clipsrv.runtime.session.preload", lambda: None)
    return planted


def test_a_device_that_agrees_and_is_faster_is_taken_and_the_log_says_what_was_measured(
    devices: Devices, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = load_model(tiny_model, AUTO)
    assert model.device == "cuda"
    (tried,) = model.trials
    assert [tried.seconds, tried.on_cpu, tried.error] == pytest.approx([0.001, 0.1, 0.0])
    assert "--device auto: cuda computes 2 images in 1.0 ms, the CPU in 100.0 ms" in caplog.text
    assert caplog.text.strip().endswith("taken")


def test_a_device_that_is_no_faster_makes_room_for_the_next(devices: Devices, tiny_model: Path) -> None:
    devices.seconds = {CUDA: 0.3, OPENVINO: 0.02, CPU: 0.1}
    model = load_model(tiny_model, AUTO)
    assert model.device == "openvino"
    assert [(tried.device, tried.passed) for tried in model.trials] == [("cuda", False), ("openvino", True)]
    assert str(model.trials[0]).endswith("not taken, for it is no faster")


@pytest.mark.parametrize(
    ("seconds", "device", "on_cpu"),
    [(0.05, "openvino", 0.1), (0.065, "openvino", 0.07), (0.08, "cpu", 0.07), (0.11, "cpu", 0.1)],
)
def test_a_device_that_is_not_far_ahead_is_measured_beside_a_cpu_that_has_packed_its_weights(
    devices: Devices, built_with: BuiltWith, tiny_model: Path, seconds: float, device: str, on_cpu: float
) -> None:
    built_with("openvino", "cpu")
    devices.seconds, devices.on_packed_cpu = {OPENVINO: seconds, CPU: 0.1}, 0.07
    model = load_model(tiny_model, AUTO)
    assert model.device == device
    assert [tried.on_cpu for tried in model.trials] == pytest.approx([on_cpu])


def test_a_device_that_gives_other_vectors_is_not_taken_however_fast(devices: Devices, tiny_model: Path) -> None:
    devices.changes = {CUDA: lambda vectors: vectors[:, ::-1], OPENVINO: lambda vectors: vectors * 1.001}
    model = load_model(tiny_model, AUTO)
    assert model.device == "openvino", "another length is no other direction"
    assert "more than 2.0% are other vectors" in str(model.trials[0])


@pytest.mark.parametrize("fault", ["nan", "raises"])
def test_a_device_that_does_not_compute_is_not_taken(devices: Devices, tiny_model: Path, fault: str) -> None:
    def fail(vectors: Any) -> Any:
        if fault == "raises":
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        return np.full_like(vectors, np.nan)

    devices.changes = {CUDA: fail, OPENVINO: fail}
    model = load_model(tiny_model, AUTO)
    assert (model.device, model.trials) == ("cpu", ())


def test_devices_that_do_not_compute_are_all_named_if_there_is_no_cpu_either(
    devices: Devices, tiny_model: Path
) -> None:
    devices.changes = {name: lambda vectors: np.full_like(vectors, np.nan) for name in (CUDA, OPENVINO)}
    with pytest.raises(DeviceError, match="--precision fp16 for --device cuda is not in this model folder"):
        load_model(tiny_model, ModelSettings(device="auto", precision="fp16", threads=1))


def test_nothing_is_measured_with_a_device_that_was_asked_for(devices: Devices, tiny_model: Path) -> None:
    devices.seconds = {CUDA: 9.0, CPU: 0.1}
    model = load_model(tiny_model, ModelSettings(device="cuda", threads=1))
    assert (model.device, model.trials) == ("cuda", ())
    assert [name for name, _ in devices.opened] == [CUDA, CUDA]


def test_nothing_is_measured_where_only_the_cpu_is(devices: Devices, built_with: BuiltWith, tiny_model: Path) -> None:
    built_with("cpu")
    model = load_model(tiny_model, AUTO)
    assert (model.device, model.trials) == ("cpu", ())
    assert [name for name, _ in devices.opened] == [CPU, CPU]


def test_nothing_is_measured_beside_a_cpu_that_could_not_take_it_over(
    devices: Devices, built_with: BuiltWith, tiny_model: Path
) -> None:
    """bf16 is OpenVINO's alone. And an onnxruntime without the CPU's kernels there is none, but one could say so."""
    built_with("cuda")
    assert load_model(tiny_model, AUTO).trials == ()


def entries(options: ort.SessionOptions) -> set[str]:
    """Those of the named ones that are set: onnxruntime raises for the others."""
    try:
        options.get_session_config_entry("session.disable_prepacking")
    except RuntimeError:
        return set()
    return {"session.disable_prepacking"}


def test_the_cpu_is_asked_without_packing_its_weights_for_it(devices: Devices, tiny_model: Path) -> None:
    load_model(tiny_model, AUTO)
    assert [name for name, options in devices.opened if "session.disable_prepacking" in entries(options)] == [CPU]


def test_a_model_whose_graph_is_broken_is_no_fault_of_a_device(
    devices: Devices, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "tiny")
    (folder / "vision.fp32.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelCorruptError):
        load_model(folder, AUTO)


def test_trials_ask_the_same_every_time_and_once_where_that_takes_long(devices: Devices) -> None:
    np.testing.assert_array_equal(photographic(2, 32), photographic(2, 32))
    asked: list[int] = []

    class Slow:
        def embed(self, batch: Any) -> Any:
            asked.append(len(batch))
            devices.clock.now += 0.5
            return np.eye(2, dtype=np.float32)

    found: Trial = trial.beside_cpu("cuda", Slow(), Slow(), 8, 0.02)  # type: ignore[arg-type]
    assert (asked, found.seconds, found.passed) == ([2, 2], 0.5, False)
