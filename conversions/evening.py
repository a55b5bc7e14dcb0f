"""Channels that lie far from zero, or are much larger than the rest, moved and evened out: the float32 function stays.

What is taken from a channel is given back by the biases of the layers that read it, or by their weights. Knows nothing
of rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import NodeProto

from conversions.activations import Range
from conversions.layers import Array, Tower

#: How much of a channel's size goes over to the weights. Half, as SmoothQuant (arXiv 2211.10438) does, where sizes are
#: guessed; more where they were measured, and where weights are rounded together, which takes back what it costs them.
_GUESSED, _MEASURED = 0.5, 0.75

Readers = Mapping[str, Sequence[NodeProto]]


def even_channels(tower: Tower, ranges: Mapping[str, Range]) -> set[str]:
    """Moves and divides what normalisations and attention give; returns the names of that.

    Channels are moved by their centre where every layer that reads them has a bias to take it up, as in Outlier
    Suppression+ (arXiv 2304.09145). Where a normalisation has no range, nothing is moved, and sizes are guessed from
    its gain and offset: normalised values seldom pass three times their deviation. Attention without one stays.
    """
    readers = tower.readers()
    return _even_normalised(tower, ranges, readers) | _even_attended(tower, ranges, readers)


def subtract_centres(tower: Tower, ranges: Mapping[str, Range], names: Iterable[str]) -> dict[str, str]:
    """Moves what is read under `names` by a subtraction of its own, which is for what nothing linear makes, as an
    activation function; returns what that is called then. What a layer without a bias reads stays."""
    readers, moved = tower.readers(), {}
    for name in names:
        centre = _move(tower, readers, [layer for layer, read in tower.layers.items() if read == name], ranges[name])
        if centre.any():
            moved[name] = tower.subtract(name, centre)
    return moved


def _even_normalised(tower: Tower, ranges: Mapping[str, Range], readers: Readers) -> set[str]:
    found: set[str] = set()
    for node in tower.model.graph.node:
        layers = [reader.output[0] for reader in readers.get(node.output[0], ())]
        if node.op_type != "LayerNormalization" or not layers or any(layer not in tower.layers for layer in layers):
            continue
        gain, offset = (tower.constant(name) for name in node.input[1:3])
        assert gain is not None
        assert offset is not None
        known, share = ranges.get(node.output[0]), _GUESSED
        size = 3 * np.abs(gain) + np.abs(offset)
        if known is not None:
            centre = _move(tower, readers, layers, known)
            offset, size, share = offset - centre, known.size(centre), _MEASURED
        factor = _divide(tower, layers, size, share)
        tower.replace(node, 1, gain / factor)
        tower.replace(node, 2, offset / factor)
        found.add(node.output[0])
    return found


def _even_attended(tower: Tower, ranges: Mapping[str, Range], readers: Readers) -> set[str]:
    """Attention mixes tokens, each channel by itself and with weights of sum 1: what is taken from the values, or
    divides them, is missing of, or divides, what comes of them."""
    made = {output: node for node in tower.model.graph.node for output in node.output}
    found: set[str] = set()
    for layer, name in tower.layers.items():
        values = _values_behind(tower, made, name)
        bias = values and _bias(tower, readers, values)
        if name not in ranges or len(readers[name]) > 1 or not values or not bias:
            continue
        adding, place, offset = bias
        centre = _move(tower, readers, [layer], ranges[name])
        factor = _divide(tower, [layer], ranges[name].size(centre), _MEASURED)
        tower.matrices[values] /= factor
        tower.replace(adding, place, (offset - centre) / factor)
        found.add(name)
    return found


def _move(tower: Tower, readers: Readers, layers: Sequence[str], known: Range) -> Array:
    """Has the biases of `layers` take up the centre of what they read, and returns it; zeros if one has none."""
    biases = [bias for layer in layers if (bias := _bias(tower, readers, layer))]
    if len(biases) < len(layers):
        return np.zeros_like(known.centre)
    for layer, (node, place, array) in zip(layers, biases, strict=True):
        tower.replace(node, place, array + known.centre @ tower.matrices[layer])
    return known.centre


def _divide(tower: Tower, layers: Sequence[str], size: Array, share: float) -> Array:
    """By what channels of such sizes are to be divided; the rows of `layers` are multiplied by it."""
    row = np.max([np.abs(tower.matrices[layer]).max(axis=1) for layer in layers], axis=0)
    usable = (size > 0) & (row > 0)
    factor: Array = (np.where(usable, size, 1) ** share / np.where(usable, row, 1) ** (1 - share)).astype(np.float32)
    for layer in layers:
        tower.matrices[layer] *= factor[:, None]
    return factor


def _bias(tower: Tower, readers: Readers, layer: str) -> tuple[NodeProto, int, Array] | None:
    """What adds a constant of one value a channel to the layer and nothing else reads it, where, and the constant."""
    nodes = readers.get(layer, ())
    if len(nodes) != 1 or nodes[0].op_type != "Add":
        return None
    place = 1 - list(nodes[0].input).index(layer)
    array = tower.constant(nodes[0].input[place])
    return None if array is None or array.ndim != 1 else (nodes[0], place, array)


#: From what attention gives back to the bias of its values: operators, and the input that goes on.
_WAY_BACK = (("Reshape", 0), ("Transpose", 0), ("MatMul", 1), ("Transpose", 0), ("Reshape", 0))


def _values_behind(tower: Tower, made: Mapping[str, NodeProto], name: str) -> str | None:
    """The layer that makes the values of which attention made `name`: heads parted, mixed and put together again."""
    for kind, place in _WAY_BACK:
        node = made.get(name)
        if node is None or node.op_type != kind:
            return None
        if kind == "MatMul" and (node.input[0] not in made or made[node.input[0]].op_type != "Softmax"):
            return None
        name = node.input[place]
    add = made.get(name)
    return next((one for one in add.input if one in tower.layers), None) if add and add.op_type == "Add" else None
