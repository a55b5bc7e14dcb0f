"""What the layers of a tower read while it computes samples: how large, how lopsided, and which of it is alike.

Knows nothing of rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from conversions.layers import Array, Tower, save
from conversions.patches import alive

#: Rows of what a layer reads, a token's each, that its second moment is taken of.
_ROWS = 8192
#: Bytes of second moments that are held at once.
_HELD = 1 << 29


@dataclass(frozen=True)
class Samples:
    """`batches` of a tower's input as it takes it: pixels (n, 3, S, S), or ids (n, length) of texts of one length.
    `taken` is the place of the token at which the vector is taken, None if it is of all. `further` batches are not
    learnt from: they judge what was learnt."""

    batches: Sequence[NDArray[Any]]
    taken: int | None = None
    further: Sequence[NDArray[Any]] = ()


@dataclass(frozen=True)
class Range:
    """Of each channel (n,) the `centre`, which is its mean, in the token that is taken if there is one, and the ends,
    `low` and `high`. Of a row `lowest` and `highest` value, the mean over all. `alone` is what has one token only."""

    centre: Array
    low: Array
    high: Array
    lowest: float
    highest: float
    alone: bool = False

    def size(self, centre: Array) -> Array:
        """The largest of each channel if it is moved by `centre`."""
        size: Array = np.maximum(self.high - centre, centre - self.low)
        return size


class Watched:
    """A tower whose layers are watched while it computes `samples`, as it is when this is made."""

    def __init__(self, tower: Tower, samples: Samples, scratch: Path) -> None:
        def product(node: NodeProto) -> Iterator[NodeProto]:
            yield helper.make_node("MatMul", [node.input[0], f"{node.output[0]}:float"], node.output, name=node.name)

        self._graph = scratch / "watched.onnx"
        save(tower.put(product, {f"{layer}:float": one for layer, one in tower.matrices.items()}), self._graph)
        self._samples = samples

    def ranges(self, names: Collection[str]) -> dict[str, Range]:
        """Of what the layers read, by name."""
        found: dict[str, list[tuple[Array, Array, Array, float, float]]] = {name: [] for name in names}
        alone = set()
        for name, values in self._read(names):
            rows, taken = _rows(values), self._samples.taken
            centre = (rows if taken is None else values[:, taken]).mean(axis=0)
            ends = float(rows.min(axis=1).mean()), float(rows.max(axis=1).mean())
            found[name].append((centre, rows.min(axis=0), rows.max(axis=0), *ends))
            if values.ndim == 3 and values.shape[1] == 1:
                alone.add(name)
        ranges = {}
        for name, batches in found.items():
            centres, lows, highs, lowest, highest = zip(*batches, strict=True)
            centre, low, high = np.mean(centres, axis=0), np.min(lows, axis=0), np.max(highs, axis=0)
            ranges[name] = Range(centre, low, high, float(np.mean(lowest)), float(np.mean(highest)), name in alone)
        return ranges

    def moments(self, widths: dict[str, int]) -> Iterator[tuple[str, Array]]:
        """The mean of x x^T (width, width) of what the layers read, a name after the other."""
        group: list[str] = []
        held = 0
        for place, (name, width) in enumerate(widths.items(), 1):
            group.append(name)
            held += 4 * width * width
            if held >= _HELD or place == len(widths):
                yield from self._moments(group)
                group, held = [], 0

    def _moments(self, names: Collection[str]) -> Iterator[tuple[str, Array]]:
        sums: dict[str, Array] = {}
        counts = dict.fromkeys(names, 0)
        for name, values in self._read(names):
            rows = _rows(values)
            some = rows[:: max(1, len(rows) * len(self._samples.batches) // _ROWS)]
            counts[name] += len(some)
            sums[name] = sums.get(name, np.float32(0)) + some.T @ some
        for name in names:
            yield name, sums.pop(name) / np.float32(counts[name])

    def _read(self, names: Collection[str]) -> Iterator[tuple[str, Array]]:
        """What is read under each name, (n, tokens, width), batch after batch."""
        model = onnx.load(self._graph, load_external_data=False)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        kept = alive(model.graph, list(model.graph.node))
        del model.graph.node[:]
        model.graph.node.extend(kept)
        asked_graph = self._graph.with_name("asked.onnx")
        onnx.save(model, asked_graph)
        for values in computed(asked_graph, names, self._samples.batches):
            yield from zip(names, values, strict=True)


def computed(graph: Path, names: Collection[str], batches: Sequence[NDArray[Any]]) -> Iterator[Sequence[Array]]:
    """What `graph` has under these names, batch after batch."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    (asked,) = session.get_inputs()
    for batch in batches:
        yield session.run(list(names), {asked.name: batch})


def _rows(values: Array) -> Array:
    return values.reshape(-1, values.shape[-1])
