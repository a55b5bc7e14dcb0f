"""Graphs in other forms compute what they say they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.variants import one_attention, without_biases, without_gelu

WIDTH, HEADS = 8, 2


def layer() -> ModelProto:
    """Attention of two heads over rows of eight numbers, as the converter writes it, and a GELU behind it."""
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "split": np.array([0, 0, HEADS, WIDTH // HEADS]),
        "join": np.array([0, 0, WIDTH]),
        "scale": np.array((WIDTH // HEADS) ** -0.5, np.float32),
        "slope": np.array(1.702, np.float32),
    }
    nodes = []
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        constants[f"{name}w"] = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
        constants[f"{name}b"] = rng.normal(size=WIDTH).astype(np.float32)
        nodes += [
            helper.make_node("MatMul", ["x", f"{name}w"], [f"{name}1"]),
            helper.make_node("Add", [f"{name}b", f"{name}1"], [f"{name}2"]),
            helper.make_node("Reshape", [f"{name}2", "split"], [f"{name}3"]),
            helper.make_node("Transpose", [f"{name}3"], [f"{name}4"], perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q4", "k4"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["weights"]),
        helper.make_node("MatMul", ["weights", "v4"], ["sums"]),
        helper.make_node("Transpose", ["sums"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "join"], ["joined"]),
        helper.make_node("Mul", ["joined", "slope"], ["steep"]),
        helper.make_node("Sigmoid", ["steep"], ["gate"]),
        helper.make_node("Mul", ["joined", "gate"], ["y"]),
        helper.make_node("Identity", ["y"], ["out"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5, WIDTH]) for name in ("x", "out")]
    graph = helper.make_graph(nodes, "layer", value[:1], value[1:])
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def run(model: ModelProto) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(3, 5, WIDTH)).astype(np.float32)
    found: NDArray[np.float32] = np.asarray(session.run(None, {"x": x})[0])
    return found


def test_one_attention_operator_computes_what_many_did() -> None:
    model, kinds = layer(), set[str]()
    before = run(model)
    one_attention(model.graph)
    kinds.update(node.op_type for node in model.graph.node)
    assert "MultiHeadAttention" in kinds
    np.testing.assert_allclose(run(model), before, atol=1e-5)


@pytest.mark.parametrize(("change", "gone"), [(without_biases, "Add"), (without_gelu, "y")])
def test_what_only_bounds_a_gain_leaves_it_out(change: Callable[[Any], None], gone: str) -> None:
    model = layer()
    before = run(model)
    change(model.graph)
    assert all(gone != node.op_type and gone not in node.output for node in model.graph.node)
    assert not np.allclose(run(model), before, atol=1e-2)
