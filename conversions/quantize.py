"""fp32 graph to int8 by the row: weights in 8 bits per output channel, every token scaled by itself.

The scale of a token is computed while the graph runs, from that token alone, so a vector cannot depend on the images
beside it in the batch. What samples teach is fixed in the graph: which channels are moved and evened out, how weights
are rounded, where zero lies. docs/precision.md has the alternatives and measurements.
onnxruntime's own kernels need this written into the graph; OpenVINO does it by itself where weights are in 8 bits.
Knows nothing of checkpoints and manifests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper
from threadpoolctl import threadpool_limits

from clipsrv.runtime.vectors import unit
from conversions.activations import Range, Samples, Watched, computed
from conversions.evening import even_channels, subtract_centres
from conversions.layers import OWN, Array, Tower, save
from conversions.progress import counted
from conversions.rounding import STEPS, round_each, round_together
from conversions.tables import compress_tables

#: Activations are unsigned around a zero because onnxruntime's fast x86 kernels take u8 x s8 only: s8 x s8 was measured
#: five to eight times slower. With zero in the middle both sides use 127 steps, as weights do.
_MIDDLE, _MOST = 128, 255
#: A zero that would lie closer to the middle than this stays there; and so many steps are left to either side, since a
#: row may be more lopsided than those of the samples.
_NEAR, _LEAST = 32, 8

_CONSTANTS: dict[str, NDArray[np.generic]] = {
    "int8.last_axis": np.array([-1], np.int64),
    # A row of zeros (padding, a dead token) must give zeros and not 0 / 0.
    "int8.smallest": np.array(1e-12, np.float32),
    # What rounding leaves is half a step at most.
    "int8.finer": np.array(1 / (2 * STEPS), np.float32),
    "int8.two_rows": np.array([0, 2, -1], np.int64),
    "int8.rows": np.array([1], np.int64),
}


@dataclass(frozen=True)
class Quantized:
    """A tower whose channels are evened out, with its weights in 8 bits, LAYER:weight and LAYER:scale. `zeros` tells
    where zero lies in 8 bits of what the layers read, by name. `alone` is what is of one token: that gets a second row,
    of what rounding the first one leaves, which costs nothing beside the other tokens' rows of other layers. `moved` is
    the same with what activation functions give moved, None if that would bring vectors no nearer."""

    tower: Tower
    zeros: Mapping[str, int]
    alone: Collection[str] = ()
    moved: Quantized | None = None

    @classmethod
    def of(cls, graph: Path, samples: Samples | None = None) -> Quantized:
        """The float32 tower `graph`. Without samples, sizes are guessed from the normalisations, and each weight is
        rounded by itself.

        Every product of activations with a constant matrix becomes integer, the patch embedding among them, but the
        last, the projection: it sees one token, so it costs nothing, and no later layer evens its error out. Attention,
        normalisation and the activation function stay float32. A text tower's table of tokens is packed by the row.
        The same graph gives the same bytes, with samples on the same kind of CPU only. Raises ConversionError if there
        is nothing to quantise or the graph's operator set is too old.
        """
        tower = Tower.read(graph)
        compress_tables(tower.model.graph)
        names = dict.fromkeys(tower.layers.values())
        with TemporaryDirectory(dir=graph.parent) as scratch:
            ranges = Watched(tower, samples, Path(scratch)).ranges(names) if samples else {}
            evened = even_channels(tower, ranges)
            watched = Watched(tower, samples, Path(scratch)) if samples else None
            round_weights(tower, watched)
            alone = {name for name, known in ranges.items() if known.alone}
            kept = evened | alone
            zeros = {name: _MIDDLE if name in kept else zero_of(ranges.get(name)) for name in names}
            plain = cls(tower, zeros, alone)
            moved = plain.move(ranges) if samples and samples.further else None
            if samples and moved and _is_nearer(moved, plain, graph, samples.further, Path(scratch)):
                return replace(plain, moved=moved)
        return plain

    def move(self, ranges: Mapping[str, Range]) -> Quantized | None:
        """The same, but what is lopsided, which is what activation functions give, has its centre subtracted; None if
        there is nothing to move."""
        tower = self.tower.copy()
        moved = subtract_centres(tower, ranges, [name for name, zero in self.zeros.items() if zero != _MIDDLE])
        zeros = {moved.get(name, name): _MIDDLE if name in moved else zero for name, zero in self.zeros.items()}
        return replace(self, tower=tower, zeros=zeros) if moved else None

    def for_onnxruntime(self, out: Path) -> None:
        """Writes the graph of integer products to `out`, its weights to `out`.data; inputs and outputs as before."""
        if self.moved:
            self.moved.for_onnxruntime(out)
            return
        scaled: set[str] = set()

        def integer(node: NodeProto) -> Iterator[NodeProto]:
            activations = self.tower.layers[node.output[0]]
            if activations not in scaled:
                scaled.add(activations)
                yield from _scale_rows(activations)
                yield from _second_row(activations) if activations in self.alone else ()
            yield from _integer_product(node, activations, two=activations in self.alone)

        constants = dict(_CONSTANTS)
        for name, zero in self.zeros.items():
            constants |= _steps(name, zero)
        save(self.tower.put(integer, constants), out)

    def for_openvino(self, out: Path) -> None:
        """As `for_onnxruntime`, but products stay float32 in the graph, of weights that are unpacked from int8.

        OpenVINO's CPU plugin computes such products in integers, with a scale for each token's group of channels, which
        session.py asks it for (DYNAMIC_QUANTIZATION_GROUP_SIZE). Other runtimes compute what the graph says.
        """

        def unpacked(node: NodeProto) -> Iterator[NodeProto]:
            layer = node.output[0]
            packed = [f"{layer}:weight", f"{layer}:scale"]
            yield helper.make_node("DequantizeLinear", packed, [f"{layer}:unpacked"], axis=1)
            yield helper.make_node("MatMul", [node.input[0], f"{layer}:unpacked"], [layer], name=node.name)

        save(self.tower.put(unpacked, {}), out)


def round_weights(tower: Tower, watched: Watched | None) -> None:
    """Puts 8 bits in the place of every layer's matrix."""
    rounded = {}
    if watched is None:
        rounded = {layer: round_each(matrix) for layer, matrix in tower.matrices.items()}
    else:
        widths = {read: len(tower.matrices[layer]) for layer, read in tower.layers.items()}
        # OpenBLAS factors these matrices four times as fast on one thread as on two, and to the same bits on every
        # number of cores.
        with threadpool_limits(1, user_api="blas"):
            for name, moment in counted(watched.moments(widths), len(widths), "Rounding weights"):
                for layer in [layer for layer, read in tower.layers.items() if read == name]:
                    rounded[layer] = round_together(tower.matrices[layer], moment)
    for layer, (weight, scale) in rounded.items():
        tower.add({f"{layer}:weight": weight, f"{layer}:scale": scale})


def zero_of(known: Range | None) -> int:
    """Where zero lies so that both ends of a row of the usual kind just fit: GELU's result hardly has a lower one."""
    if known is None or known.highest <= known.lowest:
        return _MIDDLE
    zero = round(_MOST * -known.lowest / (known.highest - known.lowest))
    return _MIDDLE if abs(zero - _MIDDLE) < _NEAR else min(max(zero, _LEAST), _MOST - _LEAST)


def _steps(name: str, zero: int) -> dict[str, NDArray[np.generic]]:
    """The constants that `_scale_rows` and `_integer_product` read."""
    above, below = (STEPS, STEPS) if zero == _MIDDLE else (_MOST - zero, zero)
    return {
        f"{name}:above": np.array(1 / above, np.float32),
        f"{name}:below": np.array(-1 / below, np.float32),
        f"{name}:zero": np.array(zero, np.uint8),
        f"{name}:zero_row": np.array([zero], np.uint8),
    }


def _scale_rows(name: str) -> Iterator[NodeProto]:
    """Nodes from `name` (..., width) to name:rows, uint8 of that shape, and name:scale, float32 (..., 1).

    QuantizeLinear takes many scales along one axis only, so the rows are laid out along the first and put back.
    The largest size is found from both ends: a row of sizes would be written and read again only for that.
    """
    make = helper.make_node
    yield make("ReduceMax", [name, "int8.last_axis"], [f"{name}:highest"], keepdims=1)
    yield make("ReduceMin", [name, "int8.last_axis"], [f"{name}:lowest"], keepdims=1)
    yield make("Mul", [f"{name}:highest", f"{name}:above"], [f"{name}:up"])
    yield make("Mul", [f"{name}:lowest", f"{name}:below"], [f"{name}:down"])
    yield make("Max", [f"{name}:up", f"{name}:down"], [f"{name}:step"])
    yield make("Max", [f"{name}:step", "int8.smallest"], [f"{name}:scale"])
    yield make("Reshape", [f"{name}:scale", "int8.last_axis"], [f"{name}:scales"])
    yield make("Shape", [f"{name}:scales"], [f"{name}:count"])
    yield make("Expand", [f"{name}:zero_row", f"{name}:count"], [f"{name}:zeros"])
    yield make("Shape", [name], [f"{name}:shape"])
    yield make("Flatten", [name], [f"{name}:flat"], axis=-1)
    yield make("QuantizeLinear", [f"{name}:flat", f"{name}:scales", f"{name}:zeros"], [f"{name}:flat8"], axis=0)
    yield make("Reshape", [f"{name}:flat8", f"{name}:shape"], [f"{name}:rows"])


def _second_row(name: str) -> Iterator[NodeProto]:
    """Nodes from one row (n, 1, width) of `_scale_rows` to name:both, uint8 (n, 2, width), of which the second is what
    rounding the first one leaves, and name:scales_of_both, float32 (n, 2, 1)."""
    make = helper.make_node
    yield make("DequantizeLinear", [f"{name}:flat8", f"{name}:scales", f"{name}:zeros"], [f"{name}:back"], axis=0)
    yield make("Sub", [f"{name}:flat", f"{name}:back"], [f"{name}:rest"])
    yield make("Mul", [f"{name}:scales", "int8.finer"], [f"{name}:finer"])
    yield make("QuantizeLinear", [f"{name}:rest", f"{name}:finer", f"{name}:zeros"], [f"{name}:rest8"], axis=0)
    yield make("Concat", [f"{name}:flat8", f"{name}:rest8"], [f"{name}:pairs"], axis=1)
    yield make("Reshape", [f"{name}:pairs", "int8.two_rows"], [f"{name}:both"])
    yield make("Mul", [f"{name}:scale", "int8.finer"], [f"{name}:finer_scale"])
    yield make("Concat", [f"{name}:scale", f"{name}:finer_scale"], [f"{name}:scales_of_both"], axis=1)


def _integer_product(node: NodeProto, activations: str, *, two: bool) -> Iterator[NodeProto]:
    layer, make = node.output[0], helper.make_node
    rows, scale = ("both", "scales_of_both") if two else ("rows", "scale")
    inputs = [f"{activations}:{rows}", f"{layer}:weight", f"{activations}:{scale}", f"{layer}:scale"]
    outputs = [f"{layer}:both"] if two else [layer]
    yield make("MatMulIntegerToFloat", [*inputs, f"{activations}:zero"], outputs, name=node.name, domain=OWN)
    if two:
        yield make("ReduceSum", [*outputs, "int8.rows"], [layer], keepdims=1)


def _is_nearer(one: Quantized, other: Quantized, graph: Path, batches: Sequence[NDArray[Any]], scratch: Path) -> bool:
    """Whether the vectors of `one` are, on average, nearer to those of the float32 `graph`."""
    output = [value.name for value in one.tower.model.graph.output]
    exact, errors = _vectors(graph, output, batches), []
    for quantized in (one, other):
        quantized.for_onnxruntime(scratch / "judged.onnx")
        errors.append(np.linalg.norm(_vectors(scratch / "judged.onnx", output, batches) - exact, axis=1).mean())
    return bool(errors[0] < errors[1])


def _vectors(graph: Path, output: Sequence[str], batches: Sequence[NDArray[Any]]) -> Array:
    return unit(np.concatenate([features for (features,) in computed(graph, output, batches)]))
