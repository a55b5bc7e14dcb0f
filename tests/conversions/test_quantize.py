"""The int8 conversion on small graphs of the exporter's shape: close, blind to batch-mates, exact where it must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.runtime.session import open_session
from clipsrv.specs import TowerSpec
from conversions.errors import ConversionError
from conversions.quantize import compress_weights, quantize, quantize_weight

WIDTH, HIDDEN, TOKENS, DIMENSIONS = 64, 128, 5, 24


def _array(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _write_tower(path: Path, *, opset: int = 18, layers: bool = True, loud: float = 1) -> Path:
    """Normalise, two layers that share their input, an activation, a third layer, first token, projection.

    `loud` multiplies one channel between the normalisation and its readers: the function is the same for any power
    of two.
    """
    weights = {
        "gamma": np.abs(_array((WIDTH,), 1)),
        "beta": _array((WIDTH,), 2),
        "up": _array((WIDTH, HIDDEN), 3) / 8,
        "gate": _array((WIDTH, HIDDEN), 4) / 8,
        "down": _array((HIDDEN, WIDTH), 5) / 8,
        "bias": _array((WIDTH,), 6),
        "projection": _array((WIDTH, DIMENSIONS), 7) / 8,
        "first": np.array(0, np.int64),
    }
    for name in ("gamma", "beta"):
        weights[name][11] *= loud
    for name in ("up", "gate"):
        weights[name][11] /= loud
    make = helper.make_node
    body = [
        make("MatMul", ["normal", "up"], ["a"]),
        make("MatMul", ["normal", "gate"], ["b"]),
        make("Sigmoid", ["b"], ["c"]),
        make("Mul", ["a", "c"], ["d"]),
        make("MatMul", ["d", "down"], ["e"]),
        make("Add", ["bias", "e"], ["f"]),
        make("Add", ["x", "f"], ["states"]),
    ]
    nodes = [
        make("LayerNormalization", ["x", "gamma", "beta"], ["normal"], axis=-1),
        *(body if layers else [make("Relu", ["normal"], ["states"])]),
        make("Gather", ["states", "first"], ["token"], axis=1),
        make("MatMul", ["token", "projection"], ["embeds"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, WIDTH])],
        [helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["batch", DIMENSIONS])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, path)
    return path


def _open(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = session.run(["embeds"], {"x": batch})[0]
    return result


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_tower(tmp_path_factory.mktemp("fp32") / "vision.fp32.onnx")


@pytest.fixture(scope="module")
def int8(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "vision.int8.onnx"
    quantize(fp32, out)
    return out


@pytest.fixture(scope="module")
def session(int8: Path) -> ort.InferenceSession:
    return _open(int8)


def test_int8_stays_within_two_percent_of_the_distance_between_inputs(
    fp32: Path, session: ort.InferenceSession
) -> None:
    batch = _array((64, TOKENS, WIDTH), 8)
    exact, rounded = _run(_open(fp32), batch), _run(session, batch)
    distance = np.linalg.norm(exact[:, None] - exact[None], axis=-1)[np.triu_indices(64, 1)].mean()
    error = np.linalg.norm(rounded - exact, axis=-1)
    assert 0 < error.mean() / distance < 0.01
    assert error.max() / distance < 0.02


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 6), loudness=st.sampled_from([0.0, 1e-6, 1.0, 1e3, 1e6]), seed=st.integers(0, 2**32 - 1))
def test_a_vector_is_the_same_to_the_bit_whatever_lies_beside_it(
    session: ort.InferenceSession, place: int, loudness: float, seed: int
) -> None:
    one = _array((1, TOKENS, WIDTH), 9)
    batch = _array((7, TOKENS, WIDTH), seed) * np.float32(loudness)
    batch[place] = one
    assert np.array_equal(_run(session, batch)[place], _run(session, one)[0])


def test_a_vector_is_the_same_to_the_bit_alone_on_all_threads_and_in_a_part_of_a_batch(int8: Path) -> None:
    plan, tower = DevicePlan("cpu", 3, "int8"), TowerSpec("x", "embeds", {"fp32": "a", "int8": int8.name})
    single = open_session(int8, replace(plan, threads=1))
    encoder = SessionEncoder(open_session(int8, plan), tower, DIMENSIONS, single=single, threads=plan.threads)
    batch = _array((7, TOKENS, WIDTH), 12)
    together = encoder.embed(batch)
    for index in range(7):
        assert np.array_equal(encoder.embed(batch[index : index + 1])[0], together[index])


def test_one_loud_token_does_not_coarsen_the_others(fp32: Path, session: ort.InferenceSession) -> None:
    """The first token alone reaches the output; with one scale per image it would drown beside the second."""
    quiet = _array((1, TOKENS, WIDTH), 10)
    loud = quiet.copy()
    loud[0, 1] *= 1e6
    assert np.array_equal(_run(session, loud), _run(session, quiet))


def test_one_loud_channel_costs_no_precision(fp32: Path, session: ort.InferenceSession, tmp_path: Path) -> None:
    batch = _array((16, TOKENS, WIDTH), 11)
    loud = _write_tower(tmp_path / "vision.fp32.onnx", loud=64)
    np.testing.assert_array_equal(_run(_open(loud), batch), _run(_open(fp32), batch))
    quantize(loud, tmp_path / "vision.int8.onnx")
    exact = _run(_open(fp32), batch)
    error = np.linalg.norm(_run(_open(tmp_path / "vision.int8.onnx"), batch) - exact, axis=-1).mean()
    assert error < 1.3 * np.linalg.norm(_run(session, batch) - exact, axis=-1).mean()


def test_a_row_of_zeros_gives_finite_values(session: ort.InferenceSession) -> None:
    assert np.isfinite(_run(session, np.zeros((2, TOKENS, WIDTH), np.float32))).all()


def test_every_layer_but_the_projection_is_integer_and_a_shared_input_is_scaled_once(int8: Path) -> None:
    model = onnx.load(int8)
    onnx.checker.check_model(int8)
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert [list(node.output) for node in products] == [["a"], ["b"], ["e"]]
    assert [node.input[1] for node in model.graph.node if node.op_type == "MatMul"] == ["projection"]
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2
    assert {"up", "gate", "down"}.isdisjoint(tensor.name for tensor in model.graph.initializer)


def test_for_openvino_the_same_weights_are_unpacked_from_8_bits_by_plain_operators(
    fp32: Path, int8: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vision.int8-openvino.onnx"
    compress_weights(fp32, out)
    onnx.checker.check_model(out)
    theirs, ours = onnx.load(out), onnx.load(int8)
    assert {node.domain for node in theirs.graph.node} == {""}
    assert [opset.domain for opset in theirs.opset_import] == [""]
    unpacked = [node.output[0] for node in theirs.graph.node if node.op_type == "DequantizeLinear"]
    products = [node.input[1] for node in theirs.graph.node if node.op_type == "MatMul"]
    assert products == [*unpacked, "projection"]
    weights = [
        {t.name: t for t in one.graph.initializer if t.name.endswith((":weight", ":scale"))} for one in (theirs, ours)
    ]
    assert weights[0] == weights[1]
    assert len(weights[0]) == 6


def test_for_openvino_only_weights_are_rounded_in_the_graph(
    fp32: Path, session: ort.InferenceSession, tmp_path: Path
) -> None:
    compress_weights(fp32, tmp_path / "vision.int8-openvino.onnx")
    batch = _array((64, TOKENS, WIDTH), 8)
    exact, rounded = _run(_open(fp32), batch), _run(_open(tmp_path / "vision.int8-openvino.onnx"), batch)
    errors = [np.linalg.norm(one - exact, axis=-1).mean() for one in (rounded, _run(session, batch))]
    assert 0 < errors[0] < errors[1]


def test_weights_lie_beside_the_graph_and_the_same_graph_gives_the_same_bytes(fp32: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first" / "vision.int8.onnx", tmp_path / "second" / "vision.int8.onnx"
    for out in (first, second, second):
        out.parent.mkdir(exist_ok=True)
        quantize(fp32, out)
    assert first.read_bytes() == second.read_bytes()
    data = [path.with_name(f"{path.name}.data") for path in (first, second)]
    assert data[0].read_bytes() == data[1].read_bytes()
    assert data[0].stat().st_size > 2 * WIDTH * HIDDEN + HIDDEN * WIDTH


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), magnitude=st.floats(-6, 6))
def test_a_weight_is_off_by_half_a_step_of_its_own_channel_at_most(seed: int, magnitude: float) -> None:
    weight = _array((31, 7), seed) * np.float32(10**magnitude)
    weight[:, 3] = 0
    values, scale = quantize_weight(weight)
    assert values.dtype == np.int8
    assert values.min() >= -127
    assert np.array_equal(np.abs(values).max(axis=0), [127, 127, 127, 0, 127, 127, 127])
    assert (np.abs(values * scale - weight) <= scale * 0.5001).all()


def test_a_graph_without_a_layer_to_quantise_is_refused(tmp_path: Path) -> None:
    graph = _write_tower(tmp_path / "vision.fp32.onnx", layers=False)
    with pytest.raises(ConversionError, match="no layer"):
        quantize(graph, tmp_path / "out.onnx")


def test_a_graph_of_an_older_operator_set_is_refused(tmp_path: Path) -> None:
    graph = _write_tower(tmp_path / "vision.fp32.onnx", opset=17)
    with pytest.raises(ConversionError, match="operator set 18"):
        quantize(graph, tmp_path / "out.onnx")
