"""What of a graph is counted as work, and what its profile says of its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.limit import Peak, by_operator, operations, operators


def node(kind: str, inputs: list[list[int]], output: list[int]) -> dict[str, Any]:
    return {
        "op_name": kind,
        "input_type_shape": [{"float": shape} for shape in inputs],
        "output_type_shape": [{"float": output}],
    }


def test_a_product_is_two_operations_for_each_multiply_add() -> None:
    assert operations(node("MatMul", [[8, 50, 768]], [8, 50, 3072])) == 2 * 8 * 50 * 768 * 3072
    # Of two inputs, by head: queries and keys of 64 numbers each.
    assert operations(node("FusedMatMul", [[2, 12, 50, 64], [2, 12, 64, 50]], [2, 12, 50, 50])) == 2 * 24 * 50 * 64 * 50
    assert operations(node("Gemm", [[4, 10]], [4, 6])) == 2 * 4 * 10 * 6


def test_a_convolution_multiplies_every_weight_at_every_place() -> None:
    assert operations(node("Conv", [[1, 3, 224, 224], [768, 3, 32, 32]], [1, 768, 7, 7])) == 2 * 49 * 768 * 3 * 32 * 32


def test_what_has_no_products_is_no_work_and_what_hides_them_is_refused() -> None:
    assert operations(node("Softmax", [[2, 12, 50, 50]], [2, 12, 50, 50])) == 0
    with pytest.raises(ValueError, match="MultiHeadAttention"):
        operations(node("MultiHeadAttention", [[2, 50, 768]], [2, 50, 768]))


def test_time_between_operators_is_told_too_and_the_first_run_is_left_out() -> None:
    def event(kind: str, name: str, start: int, lasts: int, **args: Any) -> dict[str, Any]:
        return {"cat": kind, "name": name, "ts": start, "dur": lasts, "args": args}

    work = node("MatMul", [[2, 3]], [2, 5])
    events = [
        event("Session", "model_run", 0, 1000),
        event("Node", "a_kernel_time", 10, 900, **work),
        event("Session", "model_run", 2000, 100),
        event("Node", "a_kernel_time", 2010, 60, **work),
        event("Node", "b_kernel_time", 2080, 15, **node("Add", [[2, 5]], [2, 5])),
    ]
    found = [(one.name, round(1e6 * one.seconds), one.operations) for one in by_operator(events, 1)]
    assert found == [("MatMul", 60, 60.0), ("between operators", 25, 0.0), ("Add", 15, 0.0)]


def test_operators_of_a_real_graph_are_counted_as_they_ran(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["z"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(np.ones((16, 32), np.float32), "w")],
    )
    path = tmp_path / "two.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    found = {one.name: one for one in operators(path, {"x": np.ones((3, 16), np.float32)}, runs=2)}
    assert found["MatMul"].operations == 2 * 3 * 16 * 32
    assert found.keys() == {"MatMul", "Softmax", "between operators"}
    assert all(one.seconds >= 0 for one in found.values())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_peak_is_a_rate_of_operations(precision: str) -> None:
    assert Peak(precision, 1).measure(0) > 1e8
