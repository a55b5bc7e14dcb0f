"""The patch embedding as one product of matrices, so that int8 can take it too. Knows nothing of int8.

A convolution whose steps are as long as its kernel reads every pixel once: each patch is a row of a matrix.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

_PREFIX = "patches"


def patches_to_rows(graph: GraphProto) -> None:
    """Puts Reshape, Transpose, Reshape and MatMul in the place of a Conv, Reshape and Transpose that embed patches.

    The values are the same within the order of summation. A graph without such a chain stays as it is.
    """
    chain = _find(graph)
    if chain is None:
        return
    conv, flatten, swap = chain
    (weight,) = (tensor for tensor in graph.initializer if tensor.name == conv.input[1])
    kernel = numpy_helper.to_array(weight)
    width, channels, side, _ = kernel.shape
    across = _side(graph, conv.input[0]) // side
    constants = {
        "grid": np.array([0, channels, across, side, across, side], np.int64),
        "rows": np.array([0, across * across, channels * side * side], np.int64),
        "weight": np.ascontiguousarray(kernel.reshape(width, -1).T),
    }
    graph.initializer.extend(numpy_helper.from_array(array, f"{_PREFIX}.{name}") for name, array in constants.items())
    make = helper.make_node
    rows = [
        make("Reshape", [conv.input[0], f"{_PREFIX}.grid"], [f"{_PREFIX}.tiles"]),
        make("Transpose", [f"{_PREFIX}.tiles"], [f"{_PREFIX}.ordered"], perm=[0, 2, 4, 1, 3, 5]),
        make("Reshape", [f"{_PREFIX}.ordered", f"{_PREFIX}.rows"], [f"{_PREFIX}.flat"]),
        make("MatMul", [f"{_PREFIX}.flat", f"{_PREFIX}.weight"], [swap.output[0]], name=conv.name),
    ]
    replaced = {conv.output[0], flatten.output[0], swap.output[0]}
    kept = alive(graph, [node for node in graph.node if node.output[0] not in replaced])
    del graph.node[:]
    graph.node.extend(rows + kept)


def _find(graph: GraphProto) -> tuple[NodeProto, NodeProto, NodeProto] | None:
    for conv in graph.node:
        if conv.op_type != "Conv" or len(conv.input) != 2:
            continue
        values = {a.name: list(a.ints) for a in conv.attribute}
        if values["strides"] != values["kernel_shape"] or any(values.get("pads", [])):
            continue
        flatten = _only_reader(graph, conv.output[0], "Reshape")
        swap = flatten and _only_reader(graph, flatten.output[0], "Transpose")
        if flatten and swap:
            return conv, flatten, swap
    return None


def _only_reader(graph: GraphProto, name: str, kind: str) -> NodeProto | None:
    """The node that reads the values of `name`, if it is the only one and of that kind; shapes do not count."""
    readers = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def alive(graph: GraphProto, nodes: list[NodeProto]) -> list[NodeProto]:
    """Those of `nodes` whose results still reach an output: what computed the old chain's shapes is dropped."""
    needed, alive = {value.name for value in graph.output}, []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            alive.append(node)
    return alive[::-1]


def _side(graph: GraphProto, name: str) -> int:
    (values,) = (value for value in graph.input if value.name == name)
    return int(values.type.tensor_type.shape.dim[-1].dim_value)
