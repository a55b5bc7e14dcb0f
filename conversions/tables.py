"""The table of token vectors in 8 bits, a scale for each row: a quarter of the bytes. Knows nothing of products.

A row is read whole or not at all, so its scale is its own and a vector depends on no other token's.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

#: Rows that make a table worth it. Positions and kinds of tokens have fewer, and every text reads them.
_ROWS = 4096
_STEPS = 127


def compress_tables(graph: GraphProto) -> None:
    """Puts two Gathers, Cast and Mul in the place of every Gather from a large float32 table. Others stay."""
    large = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.dims[0] >= _ROWS
    }
    nodes: list[NodeProto] = []
    packed: set[str] = set()
    for node in graph.node:
        if not _reads_rows(node) or node.input[0] not in large:
            nodes.append(node)
            continue
        table, ids = node.input
        if table not in packed:
            packed.add(table)
            graph.initializer.extend(_packed(large[table]))
        nodes += _unpacked(table, ids, node.output[0])
    del graph.node[:]
    graph.node.extend(nodes)


def _reads_rows(node: NodeProto) -> bool:
    return node.op_type == "Gather" and all(helper.get_attribute_value(one) == 0 for one in node.attribute)


def _packed(table: TensorProto) -> list[TensorProto]:
    values = numpy_helper.to_array(table)
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(_STEPS)
    scale[scale == 0] = 1
    rows = np.rint(values / scale).astype(np.int8)
    return [
        numpy_helper.from_array(rows, f"{table.name}:rows"),
        numpy_helper.from_array(scale.astype(np.float32), f"{table.name}:scale"),
    ]


def _unpacked(table: str, ids: str, out: str) -> list[NodeProto]:
    make = helper.make_node
    return [
        make("Gather", [f"{table}:rows", ids], [f"{out}:row"]),
        make("Gather", [f"{table}:scale", ids], [f"{out}:scale"]),
        make("Cast", [f"{out}:row"], [f"{out}:float"], to=TensorProto.FLOAT),
        make("Mul", [f"{out}:float", f"{out}:scale"], [out]),
    ]
