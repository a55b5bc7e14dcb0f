"""What will run for what was asked: what cannot be had is refused with the way out, never replaced."""

from __future__ import annotations

import pytest

from clipsrv.errors import DeviceError
from clipsrv.processor import Processor
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.choice import (
    AUTO_BOUND,
    candidate_devices,
    choose_precision,
    graph_file,
    in_parts,
    text_rows,
    variant,
)
from clipsrv.specs import TowerSpec
from tests.runtime.conftest import BuiltWith

TOWER = TowerSpec("x", "y", {"fp32": "a.fp32.onnx", "fp16": "a.fp16.onnx", "int8": "a.int8.onnx"})
FOR_OPENVINO = TowerSpec("x", "y", {"fp32": "a.fp32.onnx", "int8-openvino": "a.int8-openvino.onnx"})
PLAIN = TowerSpec("x", "y", {"fp32": "a.fp32.onnx"})


def x86(*features: str) -> Processor:
    return Processor("an x86 CPU", True, features)


UNKNOWN = Processor("an x86 CPU that cannot be asked", True, None)
ARM = Processor("an ARM CPU", False, ())


@pytest.mark.parametrize("device", ["cuda", "coreml", "mps", "openvino"])
def test_a_device_this_onnxruntime_was_not_built_for_is_refused_with_the_cure(
    built_with: BuiltWith, device: str
) -> None:
    built_with("cpu")
    with pytest.raises(DeviceError, match=f"--device {device} is not possible.* It needs .* Or use --device cpu"):
        candidate_devices(device)


def test_mps_is_the_guides_word_for_coreml(built_with: BuiltWith) -> None:
    built_with("coreml", "cpu")
    assert candidate_devices("mps") == candidate_devices("coreml") == ["coreml"]


def test_auto_tries_the_fastest_first_and_the_cpu_last(built_with: BuiltWith) -> None:
    built_with("cpu", "openvino", "cuda")
    assert candidate_devices("auto") == ["cuda", "openvino", "cpu"]
    built_with("cpu", "coreml")
    assert candidate_devices("auto") == ["coreml", "cpu"]


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
    assert choose_precision("auto", device, tower, x86(), errors=errors) == chosen


@pytest.mark.parametrize(
    ("asked", "device", "cpu", "said"),
    [
        (
            "bf16",
            "cpu",
            x86("amx_bf16"),
            r"needs --device openvino\. It needs .*pip install .*\[openvino\]'\. Here --dev",
        ),
        ("bf16", "openvino", x86("avx2"), "this CPU has no bf16 arithmetic"),
        ("bf16", "openvino", ARM, "this CPU has no bf16 arithmetic"),
        (
            "bf16",
            "openvino",
            UNKNOWN,
            r"cannot be told whether .* has bf16 arithmetic.*ProcSubset=all.*Or use fp32",
        ),
        ("fp16", "cpu", x86(), r"not in this model folder \(it has fp32\).*--precision fp16"),
        ("int8", "cuda", x86(), "needs --device cpu or openvino; --device cuda computes fp32, fp16"),
        ("fp8", "cpu", x86(), "no precision 'fp8'; it must be one of auto, fp32, bf16"),
        ("int8", "mps", x86(), "needs --device cpu or openvino; --device mps computes fp32, fp16"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused_with_the_reason(
    asked: str, device: str, cpu: Processor, said: str
) -> None:
    with pytest.raises(DeviceError, match=said):
        choose_precision(asked, device, PLAIN, cpu)


@pytest.mark.parametrize(("device", "tower"), [("cpu", TOWER), ("openvino", FOR_OPENVINO)])
def test_8_bits_need_instructions_that_do_not_saturate(device: str, tower: TowerSpec) -> None:
    for cpu in (x86(), x86("avx2", "avx512_bf16")):
        with pytest.raises(DeviceError, match=r"this CPU has no VNNI instructions.*wrong vectors.*Use fp32\.$"):
            choose_precision("int8", device, tower, cpu)
    for cpu in (x86("avx_vnni"), x86("avx512_vnni"), ARM):
        assert choose_precision("int8", device, tower, cpu) == "int8"


def test_a_cpu_that_cannot_be_asked_is_not_said_to_lack_anything() -> None:
    with pytest.raises(DeviceError) as caught:
        choose_precision("int8", "cpu", TOWER, UNKNOWN)
    assert "cannot be told whether this CPU has VNNI" in caught.value.message
    assert "/proc/cpuinfo cannot be read" in caught.value.message
    assert "has no VNNI" not in caught.value.message
    assert choose_precision("auto", "cpu", TOWER, UNKNOWN) == "fp32"


def test_what_is_asked_for_and_there_is_taken() -> None:
    assert choose_precision("fp16", "cpu", TOWER, x86()) == "fp16"
    assert choose_precision("bf16", "openvino", PLAIN, x86("amx_bf16")) == "bf16"


def test_bf16_is_computed_from_the_fp32_graph() -> None:
    assert graph_file(TOWER, "openvino", "bf16") == "a.fp32.onnx"
    assert graph_file(TOWER, "cpu", "int8") == "a.int8.onnx"
    assert graph_file(PLAIN, "cuda", "fp16") == "a.fp32.onnx"


def test_vectors_are_known_by_what_computed_them() -> None:
    """Parts of embedding_id, which stored vectors carry: these words never change."""
    known = {(device, precision): variant(device, precision) for device, precision in RUNS}
    assert known == RUNS


RUNS = {
    ("cpu", "fp32"): "fp32",
    ("cpu", "int8"): "int8",
    ("cuda", "fp16"): "fp16",
    ("coreml", "fp32"): "fp32",
    ("openvino", "bf16"): "bf16",
    ("openvino", "int8"): "int8-openvino",
}


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        (DevicePlan("cpu", 2, "int8"), True),
        (DevicePlan("cpu", 1, "int8"), False),
        (DevicePlan("cpu", 2, "fp32"), False),
        (DevicePlan("openvino", 2, "int8"), False),
    ],
)
def test_int8_on_the_cpu_computes_every_batch_in_parts_a_thread_each(plan: DevicePlan, parts: bool) -> None:
    assert in_parts(TOWER, plan) == parts
    assert not in_parts(TowerSpec("x", "y", {"fp32": "text.fp32.onnx"}), plan)


def test_packed_texts_in_fp32_are_computed_in_parts_where_these_are_long() -> None:
    texts = TowerSpec("x", "y", {"fp32": "text.fp32.onnx", "int8": "text.int8.onnx"}, 77, "tokenizer.json")
    exact = TowerSpec("x", "y", {"fp32": "text.fp32.onnx"}, 77, "tokenizer.json")
    images = TowerSpec("x", "y", {"fp32": "vision.fp32.onnx"})
    assert text_rows(texts, DevicePlan("cpu", 2, "fp32")) == text_rows(exact, DevicePlan("cpu", 2, "int8")) == 96
    for tower, plan in (
        (texts, DevicePlan("cpu", 2, "int8")),
        (texts, DevicePlan("cpu", 1, "fp32")),
        (texts, DevicePlan("openvino", 2, "fp32")),
        (images, DevicePlan("cpu", 2, "fp32")),
    ):
        assert text_rows(tower, plan) is None


def test_int8_is_another_graph_for_openvino() -> None:
    assert graph_file(FOR_OPENVINO, "openvino", "int8") == "a.int8-openvino.onnx"
    with pytest.raises(DeviceError, match=r"--device openvino is not in this model folder.*--precision int8"):
        choose_precision("int8", "openvino", TOWER, x86("avx512_vnni"))
    with pytest.raises(DeviceError, match=r"--device cpu is not in this model folder"):
        choose_precision("int8", "cpu", FOR_OPENVINO, x86("avx512_vnni"))
