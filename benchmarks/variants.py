"""Other forms of an int8 vision graph, to see what each would gain: one attention operator a layer, and two that
compute something else and only bound what could be gained.

    python -m benchmarks.variants MODELS_DIR/MODEL [--rounds 15] [--batch 4]

Every form runs on one thread, in turns. Prints CPU time beside the graph as it is, and how far vectors move.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, helper

from clipsrv.manifest import VISION, load_manifest
from clipsrv.runtime.session import SPINNING
from clipsrv.runtime.vectors import unit


def as_it_is(graph: onnx.GraphProto) -> None:
    """Nothing."""


def one_attention(graph: onnx.GraphProto) -> None:
    """Bias, heads, products and softmax of each layer as MultiHeadAttention; layers of another form stay."""
    made = {output: node for node in graph.node for output in node.output}
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if not tensor.dims}
    replaced: dict[str, list[NodeProto]] = {}
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        scaled = made[softmax.input[0]]
        scores = made[scaled.input[0]] if scaled.op_type == "Mul" else scaled
        sums = [node for node in graph.node if softmax.output[0] in node.input and node.op_type == "MatMul"]
        back = [node for node in graph.node if sums and sums[0].output[0] in node.input]
        whole = [node for node in graph.node if back and back[0].output[0] in node.input]
        if scores.op_type != "MatMul" or scaled.op_type != "Mul" or not whole or whole[0].op_type != "Reshape":
            continue
        sides = [_projected(made, name) for name in (*scores.input, sums[0].input[1])]
        if not all(sides):
            continue
        (q, q_bias), (k, k_bias), (v, v_bias) = (side for side in sides if side)
        if made[q].input[0] != made[k].input[0]:  # the last layer asks for one token only
            continue
        width = shapes[q_bias][0]
        scale = float(constants[scaled.input[1]])
        heads = round(width * scale * scale)
        bias = f"{softmax.output[0]}:bias"
        replaced[whole[0].output[0]] = [
            helper.make_node("Concat", [q_bias, k_bias, v_bias], [bias], axis=0),
            helper.make_node(
                "MultiHeadAttention",
                [q, k, v, bias],
                [whole[0].output[0]],
                domain="com.microsoft",
                num_heads=heads,
                scale=scale,
            ),
        ]
    nodes = [one for node in graph.node for one in replaced.get(node.output[0], [node])]
    _set_nodes(graph, nodes)
    print(f"{len(replaced)} layers have one attention operator")


def _projected(made: dict[str, NodeProto], name: str) -> tuple[str, str] | None:
    """Of a Transpose of a Reshape of an Add: the product added to, and the bias."""
    transpose = made.get(name)
    reshape = made.get(transpose.input[0]) if transpose and transpose.op_type == "Transpose" else None
    add = made.get(reshape.input[0]) if reshape and reshape.op_type == "Reshape" else None
    if add is None or add.op_type != "Add":
        return None
    bias, product = add.input if add.input[1] in made else reversed(add.input)
    return product, bias


def without_biases(graph: onnx.GraphProto) -> None:
    """No bias is added to a product: what adding them inside the product could gain at most."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    names = {}
    for node in graph.node:
        if node.op_type == "Add" and vectors.intersection(node.input):
            names[node.output[0]] = next(one for one in node.input if one not in vectors)
    _rename(graph, names)


def without_gelu(graph: onnx.GraphProto) -> None:
    """x sigmoid(1.702 x) is x: what a table of it could gain at most."""
    made = {output: node for node in graph.node for output in node.output}
    names = {}
    for node in graph.node:
        if node.op_type == "Mul" and any(made.get(one) and made[one].op_type == "Sigmoid" for one in node.input):
            names[node.output[0]] = next(one for one in node.input if made[one].op_type != "Sigmoid")
    _rename(graph, names)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    _set_nodes(graph, [node for node in graph.node if node.output[0] not in names])


def _set_nodes(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


_FORMS: dict[str, Callable[[onnx.GraphProto], None]] = {
    "as it is": as_it_is,
    "one attention operator a layer": one_attention,
    "no biases (a bound)": without_biases,
    "no GELU (a bound)": without_gelu,
}


def _session(graph: Path, folder: Path, name: str, change: Callable[[onnx.GraphProto], None]) -> ort.InferenceSession:
    model = onnx.load(graph)
    change(model.graph)
    path = folder / f"{name.replace(' ', '-')}.onnx"
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.enable_cpu_mem_arena, options.log_severity_level = 1, False, 3
    for entry, value in SPINNING.items():
        options.add_session_config_entry(entry, value)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    manifest = load_manifest(args.model)
    tower, size = manifest.towers[VISION], manifest.preprocess.crop_size
    pixels = np.random.default_rng(0).normal(size=(args.batch, 3, size, size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            name: _session(args.model / tower.variants[args.precision], Path(folder), name, change)
            for name, change in _FORMS.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        vectors: dict[str, NDArray[np.float32]] = {}
        for turn in range(args.rounds + 1):  # the first warms up
            for name, session in sessions.items():
                begin = time.process_time()
                vectors[name] = unit(np.asarray(session.run([tower.output], {tower.input: pixels})[0]))
                if turn:
                    taken[name].append(time.process_time() - begin)
    base = vectors["as it is"]
    for name, found in taken.items():
        ratios = [mine / theirs for mine, theirs in zip(found, taken["as it is"], strict=True)]
        moved = np.linalg.norm(vectors[name] - base, axis=1).max()
        best = 1000 * min(found) / args.batch
        print(f"{name:<34} {best:6.2f} ms an image, {statistics.median(ratios):.3f}, {moved:.1e}")


if __name__ == "__main__":
    main()
