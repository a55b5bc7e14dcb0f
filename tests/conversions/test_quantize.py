"""The int8 conversion on small graphs of the exporter's shape: close, blind to batch-mates, exact where it must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.runtime.session import open_session
from clipsrv.specs import TowerSpec
from conversions.activations import Samples, Watched
from conversions.errors import ConversionError
from conversions.evening import even_channels, subtract_centres
from conversions.layers import Tower
from conversions.quantize import Quantized
from conversions.rounding import round_each, round_together

WIDTH, HIDDEN, TOKENS, DIMENSIONS = 64, 128, 5, 24
#: Of how many directions inputs are mixed, as activations of real models are, and what of each channel is noise.
ALIKE, NOISE = 8, 0.1


def _array(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _inputs(count: int, seed: int) -> NDArray[np.float32]:
    """Of which channels are alike, the same ones whatever the seed."""
    mixed = _array((count, TOKENS, ALIKE), seed) @ _array((ALIKE, WIDTH), 21)
    return mixed + np.float32(NOISE) * _array((count, TOKENS, WIDTH), seed + 1000)


SAMPLES = Samples([_inputs(32, 31), _inputs(32, 32)], taken=0)


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


def _open(path: Path, *, as_written: bool = False) -> ort.InferenceSession:
    """`as_written`: onnxruntime would compute products of unpacked weights with rounded activations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
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
    Quantized.of(fp32).for_onnxruntime(out)
    return out


@pytest.fixture(scope="module")
def learnt(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `int8`, of samples."""
    out = tmp_path_factory.mktemp("learnt") / "vision.int8.onnx"
    Quantized.of(fp32, SAMPLES).for_onnxruntime(out)
    return out


@pytest.fixture(scope="module", params=["int8", "learnt"])
def session(request: pytest.FixtureRequest) -> ort.InferenceSession:
    return _open(request.getfixturevalue(request.param))


def test_int8_stays_within_two_percent_of_the_distance_between_inputs(
    fp32: Path, session: ort.InferenceSession
) -> None:
    batch = _array((64, TOKENS, WIDTH), 8)
    exact, rounded = _run(_open(fp32), batch), _run(session, batch)
    distance = np.linalg.norm(exact[:, None] - exact[None], axis=-1)[np.triu_indices(64, 1)].mean()
    error = np.linalg.norm(rounded - exact, axis=-1)
    assert 0 < error.mean() / distance < 0.01
    assert error.max() / distance < 0.02


def _errors(graph: Path, exact: NDArray[np.float32], batch: NDArray[np.float32]) -> NDArray[np.float32]:
    errors: NDArray[np.float32] = np.linalg.norm(_run(_open(graph), batch) - exact, axis=-1)
    return errors


def test_samples_take_away_a_fifth_of_the_error_of_inputs_that_are_like_them_and_add_little_to_others(
    fp32: Path, int8: Path, learnt: Path
) -> None:
    for batch, most in ((_inputs(64, 41), 0.8), (_array((64, TOKENS, WIDTH), 8), 1.1)):
        exact = _run(_open(fp32), batch)
        assert _errors(learnt, exact, batch).mean() < most * _errors(int8, exact, batch).mean()


def test_the_same_samples_give_the_same_bytes(fp32: Path, learnt: Path, tmp_path: Path) -> None:
    Quantized.of(fp32, SAMPLES).for_onnxruntime(tmp_path / learnt.name)
    for name in (learnt.name, f"{learnt.name}.data"):
        assert (tmp_path / name).read_bytes() == (learnt.parent / name).read_bytes()


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
    session = open_session(int8, plan)
    encoder = SessionEncoder(session, tower, DIMENSIONS, parting=session, threads=plan.threads)
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
    Quantized.of(loud).for_onnxruntime(tmp_path / "vision.int8.onnx")
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
    Quantized.of(fp32).for_openvino(out)
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


def test_for_openvino_only_weights_are_rounded_in_the_graph(fp32: Path, int8: Path, tmp_path: Path) -> None:
    Quantized.of(fp32).for_openvino(tmp_path / "vision.int8-openvino.onnx")
    batch = _array((64, TOKENS, WIDTH), 8)
    exact, rounded = _run(_open(fp32), batch), _run(_open(tmp_path / "vision.int8-openvino.onnx"), batch)
    errors = [np.linalg.norm(one - exact, axis=-1).mean() for one in (rounded, _run(_open(int8), batch))]
    assert 0 < errors[0] < errors[1]


def test_weights_lie_beside_the_graph_and_the_same_graph_gives_the_same_bytes(fp32: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first" / "vision.int8.onnx", tmp_path / "second" / "vision.int8.onnx"
    for out in (first, second, second):
        out.parent.mkdir(exist_ok=True)
        Quantized.of(fp32).for_onnxruntime(out)
    assert first.read_bytes() == second.read_bytes()
    data = [path.with_name(f"{path.name}.data") for path in (first, second)]
    assert data[0].read_bytes() == data[1].read_bytes()
    assert data[0].stat().st_size > 2 * WIDTH * HIDDEN + HIDDEN * WIDTH


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), magnitude=st.floats(-6, 6))
def test_a_weight_is_off_by_half_a_step_of_its_own_channel_at_most(seed: int, magnitude: float) -> None:
    weight = _array((31, 7), seed) * np.float32(10**magnitude)
    weight[:, 3] = 0
    values, scale = round_each(weight)
    assert values.dtype == np.int8
    assert values.min() >= -127
    assert np.array_equal(np.abs(values).max(axis=0), [127, 127, 127, 0, 127, 127, 127])
    assert (np.abs(values * scale - weight) <= scale * 0.5001).all()


def test_a_graph_without_a_layer_to_quantise_is_refused(tmp_path: Path) -> None:
    graph = _write_tower(tmp_path / "vision.fp32.onnx", layers=False)
    with pytest.raises(ConversionError, match="no layer"):
        Quantized.of(graph).for_onnxruntime(tmp_path / "out.onnx")


def test_a_graph_of_an_older_operator_set_is_refused(tmp_path: Path) -> None:
    graph = _write_tower(tmp_path / "vision.fp32.onnx", opset=17)
    with pytest.raises(ConversionError, match="operator set 18"):
        Quantized.of(graph).for_onnxruntime(tmp_path / "out.onnx")


ENCODER_WIDTH, HEADS = 32, 4


class _Graph:
    """A graph of the exporter's shape, a node and a constant after the other."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def add(self, kind: str, out: str, *inputs: str | NDArray[np.generic], **attributes: Any) -> str:
        names = []
        for place, one in enumerate(inputs):
            names.append(one if isinstance(one, str) else f"{out}.{place}")
            if not isinstance(one, str):
                self.constants[names[-1]] = one
        self.nodes.append(helper.make_node(kind, names, [out], name=out, **attributes))
        return out

    def linear(self, out: str, source: str, inputs: int, outputs: int, seed: int) -> str:
        weight = _array((inputs, outputs), seed) / np.float32(np.sqrt(inputs))
        return self.add("Add", f"{out}.sum", _array((outputs,), seed + 1), self.add("MatMul", out, source, weight))

    def heads(self, out: str, source: str) -> str:
        parted = self.add("Reshape", f"{out}.parted", source, np.array([0, 0, HEADS, ENCODER_WIDTH // HEADS]))
        return self.add("Transpose", f"{out}.heads", parted, perm=[0, 2, 1, 3])

    def save(self, path: Path, width: int) -> Path:
        """From x (batch, TOKENS, width) to embeds (batch, DIMENSIONS)."""
        made = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", TOKENS, width])],
            [helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["batch", DIMENSIONS])],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        return path


def _write_encoder(path: Path, *, far: float) -> Path:
    """One layer as CLIP has them, ReLU for GELU, and a projection of the first token. Channels of both normalisations
    and of the values lie up to `far` from zero."""
    graph, width = _Graph(), ENCODER_WIDTH

    def normal(out: str, source: str, seed: int) -> str:
        gain, offset = 1 + _array((width,), seed) / 4, np.float32(far) * _array((width,), seed + 1)
        return graph.add("LayerNormalization", out, source, gain, offset, axis=-1)

    first = normal("first", "x", 50)
    q, k, v = (graph.heads(name, graph.linear(name, first, width, width, 60 + 2 * n)) for n, name in enumerate("qkv"))
    scores = graph.add("MatMul", "scores", q, graph.add("Transpose", "turned", k, perm=[0, 1, 3, 2]))
    mixed = graph.add("MatMul", "mixed", graph.add("Softmax", "shares", scores, axis=-1), v)
    joined = graph.add("Transpose", "joined", mixed, perm=[0, 2, 1, 3])
    attended = graph.add("Reshape", "attended", joined, np.array([0, 0, width]))
    after = graph.add("Add", "after", "x", graph.linear("out", attended, width, width, 70))
    active = graph.add("Relu", "active", graph.linear("up", normal("second", after, 52), width, 2 * width, 72))
    whole = graph.add("Add", "whole", after, graph.linear("down", active, 2 * width, width, 74))
    token = graph.add("Gather", "token", whole, np.array(0, np.int64), axis=1)
    graph.add("MatMul", "embeds", token, _array((width, DIMENSIONS), 76) / np.float32(np.sqrt(width)))
    return graph.save(path, width)


def _encoder_inputs(seed: int) -> NDArray[np.float32]:
    return _array((64, TOKENS, ENCODER_WIDTH), seed)


def test_channels_are_moved_and_evened_out_and_the_float32_function_stays(tmp_path: Path) -> None:
    graph = _write_encoder(tmp_path / "vision.fp32.onnx", far=4)
    tower, samples = Tower.read(graph), Samples([_encoder_inputs(80)], taken=0)
    ranges = Watched(tower, samples, tmp_path).ranges(["first", "attended", "second"])
    assert even_channels(tower, ranges) == {"first", "attended", "second"}
    for name, one in Watched(tower, samples, tmp_path).ranges(ranges).items():
        assert np.abs(ranges[name].centre).max() > 1
        np.testing.assert_allclose(one.centre, 0, atol=1e-4, err_msg=name)
    batch = _encoder_inputs(81)
    np.testing.assert_allclose(_run(_open(tmp_path / "watched.onnx"), batch), _run(_open(graph), batch), atol=1e-4)


def test_values_far_from_zero_cost_no_precision_once_samples_have_shown_where_they_lie(tmp_path: Path) -> None:
    errors = {}
    batch, samples = _encoder_inputs(82), Samples([_encoder_inputs(80)], taken=0)
    for far in (0.1, 4):
        graph = _write_encoder(tmp_path / f"{far}.fp32.onnx", far=far)
        exact = _run(_open(graph), batch)
        for name, known in (("guessed", None), ("learnt", samples)):
            Quantized.of(graph, known).for_onnxruntime(tmp_path / f"{far}.{name}.onnx")
            errors[far, name] = _errors(tmp_path / f"{far}.{name}.onnx", exact, batch).mean()
    assert errors[4, "learnt"] < 0.6 * errors[4, "guessed"]
    assert errors[0.1, "learnt"] < errors[0.1, "guessed"]


def test_zero_lies_where_the_values_of_a_layers_input_begin(tmp_path: Path) -> None:
    """Without samples in the middle; ReLU has nothing below, and a few steps are left for what samples did not have."""
    graph = _write_encoder(tmp_path / "vision.fp32.onnx", far=0.1)
    assert set(Quantized.of(graph).zeros.values()) == {128}
    samples = Samples([_encoder_inputs(80)], taken=0)
    assert Quantized.of(graph, samples).zeros == {"first": 128, "attended": 128, "second": 128, "active": 8}


def _write_lone(path: Path) -> Path:
    """Two layers of the first token alone, as CLIP's last one has them."""
    graph = _Graph()
    token = graph.add("Gather", "token", "x", np.array([0], np.int64), axis=1)
    active = graph.add("Relu", "active", graph.linear("up", token, WIDTH, HIDDEN, 110))
    row = graph.add("Squeeze", "row", graph.linear("down", active, HIDDEN, WIDTH, 112), np.array([1], np.int64))
    graph.add("MatMul", "embeds", row, _array((WIDTH, DIMENSIONS), 114) / 8)
    return graph.save(path, WIDTH)


def test_a_token_that_is_alone_is_rounded_to_twice_the_bits_whatever_lies_beside_its_image(tmp_path: Path) -> None:
    quantized = Quantized.of(_write_lone(tmp_path / "vision.fp32.onnx"), SAMPLES)
    assert set(quantized.alone) == {"token", "active"}
    assert quantized.zeros == {"token": 128, "active": 128}
    quantized.for_onnxruntime(tmp_path / "int8.onnx")
    quantized.for_openvino(tmp_path / "weights.onnx")
    replace(quantized, alone=()).for_onnxruntime(tmp_path / "one.onnx")
    batch = _inputs(16, 41)
    weights_alone = _run(_open(tmp_path / "weights.onnx", as_written=True), batch)
    two, one = (_errors(tmp_path / name, weights_alone, batch).mean() for name in ("int8.onnx", "one.onnx"))
    assert 0 < two < 0.02 * one
    session = _open(tmp_path / "int8.onnx")
    assert np.array_equal(_run(session, batch)[5], _run(session, batch[5:6])[0])
    assert np.isfinite(_run(session, np.zeros_like(batch))).all()


def _first_alike(seed: int, noise: float) -> NDArray[np.float32]:
    """Inputs whose first token is one and the same, but for that much noise."""
    batch = _encoder_inputs(seed)
    batch[:, 0] = _array((ENCODER_WIDTH,), 120) + np.float32(noise) * batch[:, 0]
    return batch


@pytest.mark.parametrize(("noise", "moved"), [(0.1, True), (3, False)])
def test_what_an_activation_gives_is_moved_only_if_further_samples_come_nearer_by_it(
    tmp_path: Path, noise: float, moved: bool
) -> None:
    graph, batch = _write_encoder(tmp_path / "vision.fp32.onnx", far=0.1), _first_alike(121, noise)
    samples = Samples([_first_alike(122, noise)], taken=0, further=[_first_alike(123, noise)])
    known, plain = Quantized.of(graph, samples), Quantized.of(graph, replace(samples, further=()))
    assert ((known.moved is not None), plain.moved) == (moved, None)
    errors = []
    for name, one in (("known", known), ("plain", plain)):
        one.for_onnxruntime(tmp_path / f"{name}.onnx")
        one.for_openvino(tmp_path / f"{name}.openvino.onnx")
        errors.append(_errors(tmp_path / f"{name}.onnx", _run(_open(graph), batch), batch).mean())
    assert (errors[0] < errors[1]) if moved else (errors[0] == errors[1])
    # OpenVINO has scales of its own, by groups of channels: its graph is the same either way.
    theirs = [(tmp_path / f"{name}.openvino.onnx.data").read_bytes() for name in ("known", "plain")]
    assert theirs[0] == theirs[1]


def test_what_is_moved_by_a_subtraction_leaves_the_float32_function_and_what_has_no_bias_to_take_it_up(
    tmp_path: Path,
) -> None:
    graph, samples = _write_encoder(tmp_path / "vision.fp32.onnx", far=0.1), Samples([_encoder_inputs(80)], taken=0)
    tower = Tower.read(graph)
    ranges = Watched(tower, samples, tmp_path).ranges(["active"])
    assert subtract_centres(tower, ranges, ["active"]) == {"active": "active:moved"}
    after = Watched(tower, samples, tmp_path).ranges(["active:moved"])["active:moved"]
    np.testing.assert_allclose(after.centre, 0, atol=1e-5)
    batch = _encoder_inputs(81)
    np.testing.assert_allclose(_run(_open(tmp_path / "watched.onnx"), batch), _run(_open(graph), batch), atol=1e-4)

    bare = Tower.read(_write_tower(tmp_path / "bare.onnx"))
    ranges = Watched(bare, SAMPLES, tmp_path).ranges(["normal"])
    assert subtract_centres(bare, ranges, ["normal"]) == {}


def test_weights_that_are_rounded_together_take_back_what_the_others_add() -> None:
    weight, rows = _array((96, 24), 90), _inputs(200, 91).reshape(-1, WIDTH)
    weight, moment = weight[:WIDTH], rows.T @ rows / np.float32(len(rows))
    errors = []
    for values, scale in (round_each(weight), round_together(weight, moment)):
        assert values.dtype == np.int8
        assert np.abs(values.astype(int)).max() <= 127
        errors.append(np.linalg.norm(rows @ (values * scale - weight)))
    assert errors[1] < 0.5 * errors[0]


def test_weights_whose_inputs_are_all_zero_are_rounded_each_by_itself() -> None:
    weight = _array((31, 7), 92)
    for ours, theirs in zip(round_together(weight, np.zeros((31, 31), np.float32)), round_each(weight), strict=True):
        np.testing.assert_array_equal(ours, theirs)
