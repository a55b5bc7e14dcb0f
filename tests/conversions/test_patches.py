"""The patch embedding as a product of matrices: the same values, for any batch, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from conversions.patches import patches_to_rows

CHANNELS, SIDE, PATCH, WIDTH = 3, 24, 8, 16
COUNT = (SIDE // PATCH) ** 2


def _graph(**convolution: Any) -> onnx.ModelProto:
    """An embedding as the exporter writes it: convolution, its own shape to flatten by, transposition."""
    kernel = np.random.default_rng(0).standard_normal((WIDTH, CHANNELS, PATCH, PATCH), np.float32)
    constants = {"kernel": kernel, "zero": np.array([0]), "two": np.array([2]), "rest": np.array([-1])}
    settings = {"kernel_shape": [PATCH, PATCH], "strides": [PATCH, PATCH], "pads": [0, 0, 0, 0]} | convolution
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "kernel"], ["maps"], name="embed", **settings),
        make("Shape", ["maps"], ["size"]),
        make("Slice", ["size", "zero", "two", "zero"], ["kept"]),
        make("Concat", ["kept", "rest"], ["flat_size"], axis=0),
        make("Reshape", ["maps", "flat_size"], ["flat"]),
        make("Transpose", ["flat"], ["patches"], perm=[0, 2, 1]),
        make("Neg", ["patches"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _run(model: onnx.ModelProto, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": batch})[0]
    return result


@pytest.mark.parametrize("batch", [1, 5])
def test_patches_times_a_matrix_are_what_the_convolution_gives(batch: int) -> None:
    pixels = np.random.default_rng(1).standard_normal((batch, CHANNELS, SIDE, SIDE), np.float32)
    expected, model = _run(_graph(), pixels), _graph()
    patches_to_rows(model.graph)
    got = _run(model, pixels)
    assert got.shape == (batch, COUNT, WIDTH)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_the_convolution_and_what_computed_its_shape_are_gone() -> None:
    model = _graph()
    patches_to_rows(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Transpose", "Reshape", "MatMul", "Neg"]


@pytest.mark.parametrize("convolution", [{"strides": [4, 4]}, {"strides": [12, 12]}, {"pads": [1, 1, 1, 1]}])
def test_a_convolution_whose_patches_overlap_or_miss_pixels_stays(convolution: dict[str, list[int]]) -> None:
    model = _graph(**convolution)
    before = model.SerializeToString()
    patches_to_rows(model.graph)
    assert model.SerializeToString() == before


def test_a_convolution_whose_maps_somebody_else_reads_stays() -> None:
    model = _graph()
    model.graph.node.append(helper.make_node("Relu", ["maps"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    before = model.SerializeToString()
    patches_to_rows(model.graph)
    assert model.SerializeToString() == before
