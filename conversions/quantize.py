"""fp32 graph to int8 by the row: weights in 8 bits per output channel, every token scaled by itself.

The scale of a token is computed while the graph runs, from that token alone. So there is nothing to calibrate, and a
vector cannot depend on the images beside it in the batch. Channels much larger than the rest are first evened out
against the weights that read them. docs/precision.md has the alternatives and measurements.
onnxruntime's own kernels need this written into the graph; OpenVINO does it by itself where weights are in 8 bits.
Knows nothing of checkpoints and manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from conversions.errors import ConversionError
from conversions.patches import patches_to_rows
from conversions.tables import compress_tables

#: onnxruntime's own operators; MatMulIntegerToFloat is one of them.
_DOMAIN = "com.microsoft"
#: From here on ReduceMax takes its axes as an input.
_MIN_OPSET = 18
#: Smaller tensors stay in the graph: shapes and scalars are read while it is being loaded.
_INLINE_BYTES = 1024
#: Activations are unsigned around 128 because onnxruntime's fast x86 kernels take u8 x s8 only: s8 x s8 was measured
#: five to eight times slower. Both sides use 127 steps each way, so that zero is exact.
_ZERO, _STEPS = 128, 127

_CONSTANTS: dict[str, NDArray[np.generic]] = {
    "int8.last_axis": np.array([-1], np.int64),
    "int8.step": np.array(1 / _STEPS, np.float32),
    # A row of zeros (padding, a dead token) must give zeros and not 0 / 0.
    "int8.smallest": np.array(1e-12, np.float32),
    "int8.zero_row": np.array([_ZERO], np.uint8),
    "int8.zero": np.array(_ZERO, np.uint8),
}


def quantize(graph: Path, out: Path) -> None:
    """Writes the int8 form of the float32 tower `graph` to `out` and `out`.data; same inputs and outputs.

    Every product of activations with a constant matrix becomes integer, the patch embedding among them, but the last,
    the projection: it sees one token, so it costs nothing, and no later layer evens its error out. Attention,
    normalisation and the activation function stay float32. A text tower's table of tokens is packed by the row.
    The same graph gives the same bytes.
    Raises ConversionError if there is nothing to quantise or the graph's operator set is too old.
    """
    tower = _Tower.read(graph)
    compress_tables(tower.model.graph)
    added = tower.even_channels() + [numpy_helper.from_array(array, name) for name, array in _CONSTANTS.items()]
    scaled: set[str] = set()

    def integer(node: NodeProto) -> Iterator[NodeProto]:
        activations, _ = tower.layers[node.output[0]]
        if activations not in scaled:
            scaled.add(activations)
            yield from _scale_rows(activations)
        yield _integer_product(node, activations)

    tower.write(integer, added, out)


def compress_weights(graph: Path, out: Path) -> None:
    """As `quantize`, but for OpenVINO: products stay float32 in the graph, of weights that are unpacked from int8.

    OpenVINO's CPU plugin computes such products in integers, with a scale for each token's group of channels, which
    session.py asks it for (DYNAMIC_QUANTIZATION_GROUP_SIZE). Other runtimes compute what the graph says.
    """
    tower = _Tower.read(graph)

    def unpacked(node: NodeProto) -> Iterator[NodeProto]:
        layer = node.output[0]
        packed = [f"{layer}:weight", f"{layer}:scale"]
        yield helper.make_node("DequantizeLinear", packed, [f"{layer}:unpacked"], axis=1)
        yield helper.make_node("MatMul", [node.input[0], f"{layer}:unpacked"], [layer], name=node.name)

    tower.write(unpacked, tower.even_channels(), out)


@dataclass
class _Tower:
    """A float32 graph with its linear layers, by output: what they read, and a copy of their `matrices`."""

    model: onnx.ModelProto
    layers: dict[str, tuple[str, str]]
    matrices: dict[str, NDArray[np.float32]]

    @classmethod
    def read(cls, graph: Path) -> _Tower:
        model = onnx.load(graph)
        opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        if opset < _MIN_OPSET:
            raise ConversionError(
                f"int8 needs a graph of operator set {_MIN_OPSET} or later; {graph.name} has {opset}."
            )
        patches_to_rows(model.graph)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        outputs = {value.name for value in model.graph.output}
        layers = {
            node.output[0]: (node.input[0], node.input[1])
            for node in model.graph.node
            if _is_linear(node, weights) and node.output[0] not in outputs
        }
        if not layers:
            raise ConversionError(f"{graph.name} has no layer that int8 could make faster.")
        return cls(
            model, layers, {name: numpy_helper.to_array(weights[weight]).copy() for name, (_, weight) in layers.items()}
        )

    def even_channels(self) -> list[TensorProto]:
        """Evens channels out in `matrices`; returns the normalisations' new gains and offsets."""
        return _even_channels(self.model.graph, self.layers, self.matrices)

    def write(self, product: Callable[[NodeProto], Iterable[NodeProto]], added: list[TensorProto], out: Path) -> None:
        """Puts what `product` makes of each layer's node in its place, and its weights LAYER:weight and LAYER:scale."""
        nodes: list[NodeProto] = []
        for node in self.model.graph.node:
            nodes += product(node) if node.output[0] in self.layers else [node]
        for layer, matrix in self.matrices.items():
            weight, scale = quantize_weight(matrix)
            added.append(numpy_helper.from_array(weight, f"{layer}:weight"))
            added.append(numpy_helper.from_array(scale, f"{layer}:scale"))
        _rebuild(self.model, nodes, added)
        _save(self.model, out)


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(inputs, outputs) to int8 of that shape within +-127 and one scale per output: weight ~ int8 * scale."""
    scale = np.abs(weight).max(axis=0) / np.float32(_STEPS)
    scale[scale == 0] = 1
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def _is_linear(node: NodeProto, weights: dict[str, TensorProto]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in weights and len(weights[node.input[1]].dims) == 2


def _even_channels(
    graph: onnx.GraphProto, layers: dict[str, tuple[str, str]], matrices: dict[str, NDArray[np.float32]]
) -> list[TensorProto]:
    """Divides the channels a normalisation gives and multiplies the rows of `matrices` that read them, in place.

    SmoothQuant (arXiv 2211.10438) with alpha = 0.5, but a channel's size comes from the normalisation's own gain and
    offset instead of sample images. The float32 function stays the same within rounding. Returns the new gains and
    offsets.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    added: list[TensorProto] = []
    for node in graph.node:
        values = [reader for reader in readers.get(node.output[0], []) if reader.op_type != "Shape"]
        if node.op_type != "LayerNormalization" or not values or any(r.output[0] not in layers for r in values):
            continue
        gain, offset = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        row = np.max([np.abs(matrices[reader.output[0]]).max(axis=1) for reader in values], axis=0)
        # Normalised values seldom pass three times their deviation.
        size = 3 * np.abs(gain) + np.abs(offset)
        usable = (size > 0) & (row > 0)
        factor = np.sqrt(np.where(usable, size, 1) / np.where(usable, row, 1)).astype(np.float32)
        for reader in values:
            matrices[reader.output[0]] *= factor[:, None]
        for place, array in ((1, gain), (2, offset)):
            node.input[place] = f"{node.output[0]}:{('gain', 'offset')[place - 1]}"
            added.append(numpy_helper.from_array(array / factor, node.input[place]))
    return added


def _scale_rows(name: str) -> Iterator[NodeProto]:
    """Nodes from `name` (..., width) to name:rows, uint8 of that shape, and name:scale, float32 (..., 1).

    QuantizeLinear takes many scales along one axis only, so the rows are laid out along the first and put back.
    The largest size is found from both ends: a row of sizes would be written and read again only for that.
    """
    make = helper.make_node
    yield make("ReduceMax", [name, "int8.last_axis"], [f"{name}:highest"], keepdims=1)
    yield make("ReduceMin", [name, "int8.last_axis"], [f"{name}:lowest"], keepdims=1)
    yield make("Neg", [f"{name}:lowest"], [f"{name}:deepest"])
    yield make("Max", [f"{name}:highest", f"{name}:deepest"], [f"{name}:max"])
    yield make("Mul", [f"{name}:max", "int8.step"], [f"{name}:step"])
    yield make("Max", [f"{name}:step", "int8.smallest"], [f"{name}:scale"])
    yield make("Reshape", [f"{name}:scale", "int8.last_axis"], [f"{name}:scales"])
    yield make("Shape", [f"{name}:scales"], [f"{name}:count"])
    yield make("Expand", ["int8.zero_row", f"{name}:count"], [f"{name}:zeros"])
    yield make("Shape", [name], [f"{name}:shape"])
    yield make("Flatten", [name], [f"{name}:flat"], axis=-1)
    yield make("QuantizeLinear", [f"{name}:flat", f"{name}:scales", f"{name}:zeros"], [f"{name}:flat8"], axis=0)
    yield make("Reshape", [f"{name}:flat8", f"{name}:shape"], [f"{name}:rows"])


def _integer_product(node: NodeProto, activations: str) -> NodeProto:
    layer = node.output[0]
    inputs = [f"{activations}:rows", f"{layer}:weight", f"{activations}:scale", f"{layer}:scale", "int8.zero"]
    return helper.make_node("MatMulIntegerToFloat", inputs, [layer], name=node.name, domain=_DOMAIN)


def _rebuild(model: onnx.ModelProto, nodes: list[NodeProto], added: list[TensorProto]) -> None:
    """Puts `nodes` and `added` in place, and drops the weights that no node reads any more."""
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept + added)
    used = any(node.domain == _DOMAIN for node in nodes)
    if used and all(opset.domain != _DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def _save(model: onnx.ModelProto, out: Path) -> None:
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
