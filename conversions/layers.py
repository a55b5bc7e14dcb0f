"""A float32 graph as int8 sees it: its products with constant matrices, which are taken out, changed and put back.

Knows nothing of rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from conversions.errors import ConversionError
from conversions.patches import patches_to_rows

#: onnxruntime's own operators.
OWN = "com.microsoft"
#: From here on ReduceMax takes its axes as an input.
_MIN_OPSET = 18
#: Smaller tensors stay in the graph: shapes and scalars are read while it is being loaded.
_INLINE_BYTES = 1024

Array = NDArray[np.float32]
Constants = Mapping[str, NDArray[Any]]


@dataclass
class Tower:
    """A graph with its linear `layers`, by output: what they read. Their `matrices`, (inputs, outputs) each, are taken
    out of it."""

    model: onnx.ModelProto
    layers: dict[str, str]
    matrices: dict[str, Array]

    @classmethod
    def read(cls, graph: Path) -> Tower:
        """Every product of activations with a constant matrix, the patch embedding among them, but the last, the
        projection. Raises ConversionError if there is none or the graph's operator set is too old."""
        model = onnx.load(graph)
        opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        if opset < _MIN_OPSET:
            raise ConversionError(
                f"int8 needs a graph of operator set {_MIN_OPSET} or later; {graph.name} has {opset}."
            )
        patches_to_rows(model.graph)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        outputs = {value.name for value in model.graph.output}
        linear = [node for node in model.graph.node if _is_linear(node, weights) and node.output[0] not in outputs]
        if not linear:
            raise ConversionError(f"{graph.name} has no layer that int8 could make faster.")
        layers = {node.output[0]: node.input[0] for node in linear}
        matrices = {node.output[0]: numpy_helper.to_array(weights[node.input[1]]).copy() for node in linear}
        taken = {node.input[1] for node in linear}
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in taken]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        return cls(model, layers, matrices)

    def copy(self) -> Tower:
        """One of its own graph; the matrices are the same."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Tower(model, dict(self.layers), self.matrices)

    def constant(self, name: str) -> Array | None:
        """The values of a constant; None of what is computed."""
        return next((numpy_helper.to_array(one) for one in self.model.graph.initializer if one.name == name), None)

    def replace(self, node: NodeProto, place: int, array: Array) -> None:
        """Has `node` read `array` there, and nobody else."""
        name = f"{node.output[0]}:{node.input[place]}"
        self.add({name: array})
        node.input[place] = name

    def subtract(self, name: str, array: Array) -> str:
        """Has the layers that read `name` read what is left without `array`, and returns the name of that."""
        left, nodes = f"{name}:moved", self.model.graph.node
        self.add({f"{name}:centre": array})
        reading = [place for place, node in enumerate(nodes) if self.layers.get(node.output[0]) == name]
        for place in reading:
            nodes[place].input[0] = self.layers[nodes[place].output[0]] = left
        nodes.insert(reading[0], helper.make_node("Sub", [name, f"{name}:centre"], [left]))
        return left

    def add(self, constants: Constants) -> None:
        self.model.graph.initializer.extend(_tensors(constants))

    def readers(self) -> dict[str, list[NodeProto]]:
        """By name of a value, who reads it; those who ask for its shape only do not count."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input if node.op_type != "Shape" else ():
                found.setdefault(name, []).append(node)
        return found

    def put(self, product: Callable[[NodeProto], Iterable[NodeProto]], constants: Constants) -> onnx.ModelProto:
        """The model with what `product` makes of each layer's node in its place, and these constants; none that nobody
        reads."""
        nodes: list[NodeProto] = []
        for node in self.model.graph.node:
            nodes += product(node) if node.output[0] in self.layers else [node]
        read = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            self.model.graph.name,
            self.model.graph.input,
            self.model.graph.output,
            [tensor for tensor in self.model.graph.initializer if tensor.name in read],
        )
        graph.initializer.extend(_tensors({name: array for name, array in constants.items() if name in read}))
        opsets = list(self.model.opset_import)
        if any(node.domain == OWN for node in nodes) and all(opset.domain != OWN for opset in opsets):
            opsets.append(helper.make_opsetid(OWN, 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.model.ir_version)


def save(model: onnx.ModelProto, out: Path) -> None:
    """Writes `out`, and its weights to `out`.data. The model is not to be used afterwards."""
    data = f"{out.name}.data"
    (out.parent / data).unlink(missing_ok=True)  # onnx would write behind what is there.
    onnx.save(
        model,
        out,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data,
        size_threshold=_INLINE_BYTES,
    )


def _tensors(constants: Constants) -> Iterator[TensorProto]:
    return (numpy_helper.from_array(array, name) for name, array in constants.items())


def _is_linear(node: NodeProto, weights: dict[str, TensorProto]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in weights and len(weights[node.input[1]].dims) == 2
