"""Tables of token vectors in 8 bits a row: close, a quarter of the bytes, and no row spoils another."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from conversions.tables import compress_tables

ROWS, WIDTH = 5000, 16


def graph_of(table: NDArray[np.float32], axis: int = 0) -> onnx.ModelProto:
    """A table read twice: by the ids, and by the ids of a second text."""
    ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("ids", "others")]
    nodes = [helper.make_node("Gather", ["table", i.name], [f"{i.name}:out"], axis=axis) for i in ids]
    outputs = [helper.make_tensor_value_info(f"{i.name}:out", TensorProto.FLOAT, ["n", WIDTH]) for i in ids]
    graph = helper.make_graph(nodes, "texts", ids, outputs, [numpy_helper.from_array(table, "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, ids: list[int]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first, second = session.run(None, {"ids": np.array(ids), "others": np.array(ids)})
    np.testing.assert_array_equal(first, second)
    return np.asarray(first)


def test_a_row_is_off_by_half_of_its_own_step_at_most_whatever_the_others_are() -> None:
    table = np.random.default_rng(0).standard_normal((ROWS, WIDTH), np.float32)
    table[0], table[1], table[2] = 0, table[1] * 1e6, table[2] * 1e-6
    model = graph_of(table)
    compress_tables(model.graph)
    onnx.checker.check_model(model)
    ids = [0, 1, 2, 3, ROWS - 1]
    steps = np.abs(table[ids]).max(axis=1, keepdims=True) / 127
    assert (np.abs(run(model, ids) - table[ids]) <= steps * 0.501).all()
    packed = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert packed["table:rows"] == TensorProto.INT8
    assert [node.op_type for node in model.graph.node] == ["Gather", "Gather", "Cast", "Mul"] * 2


def test_small_tables_and_other_axes_stay_as_they_are() -> None:
    for model in (graph_of(np.ones((77, WIDTH), np.float32)), graph_of(np.ones((ROWS, WIDTH), np.float32), axis=1)):
        before = model.SerializeToString()
        compress_tables(model.graph)
        assert model.SerializeToString() == before
