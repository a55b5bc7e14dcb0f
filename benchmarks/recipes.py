"""The error of int8 by recipe, beside fp32: python -m benchmarks.recipes onnx_models/vit-b-32.

A line of Markdown for each recipe, as it is measured: the mean and the worst error of the images that judge a
conversion, as shares of the mean distance between them, how many of their neighbours stay, and MiB of the graph.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image
from clipsrv.manifest import VISION, load_manifest
from clipsrv.runtime.vectors import unit
from conversions.activations import Range, Samples, Watched
from conversions.evening import even_channels
from conversions.golden import golden_images
from conversions.layers import Tower, save
from conversions.quantize import Quantized, round_weights, zero_of
from conversions.samples import pixel_samples
from conversions.verify import compare

Vectors = NDArray[np.float32]
MIDDLE = zero_of(None)
BATCH = 8


@dataclass(frozen=True)
class Recipe:
    """Channels evened out by sizes that are "guessed", "measured", or measured and "moved" by their mean. Weights
    rounded `together` or each by itself; `zeros` laid where values begin; `two_rows` for a token that is alone; what
    activation functions give `subtracted` from. `float32` are layers that stay so: what reads a token that is "alone",
    what reads an "activation", or both. `exact` rounds weights only."""

    name: str
    channels: str = "moved"
    together: bool = True
    zeros: bool = True
    two_rows: bool = True
    subtracted: bool = True
    float32: frozenset[str] = frozenset()
    exact: bool = False


_BEFORE = Recipe("channels evened out by guess, each weight to the nearest step", "guessed", False, False, False, False)
_ONE_ROW = Recipe("channels moved by the class token's mean", two_rows=False, subtracted=False)
_MOVED = Recipe("what activation functions give moved too, by a subtraction")
NOW = Recipe("now: the nearer of the two before, by images that neither is learnt from")
RECIPES = (
    _BEFORE,
    replace(_BEFORE, name="zero where values begin", zeros=True),
    replace(_BEFORE, name="weights rounded together", zeros=True, together=True),
    replace(_ONE_ROW, name="channels evened out by their measured sizes", channels="measured"),
    _ONE_ROW,
    replace(_ONE_ROW, name="second half of the last layer's MLP in fp32", float32=frozenset({"alone", "activation"})),
    replace(_ONE_ROW, name="all of the last layer's products with one token in fp32", float32=frozenset({"alone"})),
    replace(_ONE_ROW, name="these in int8, two rows each", two_rows=True),
    _MOVED,
    NOW,
    replace(_MOVED, name="weights alone", exact=True),
    replace(_ONE_ROW, name="second half of every MLP in fp32 (a bound)", float32=frozenset({"activation"})),
)


def quantized(graph: Path, samples: Samples, recipe: Recipe, scratch: Path) -> Quantized:
    """The float32 tower `graph` in 8 bits by the recipe; NOW is what the converter makes itself."""
    if recipe is NOW:
        return Quantized.of(graph, samples)
    tower = Tower.read(graph)
    names = list(dict.fromkeys(tower.layers.values()))
    ranges = Watched(tower, samples, scratch).ranges(names)
    sized = {name: replace(one, centre=np.zeros_like(one.centre)) for name, one in ranges.items()}
    evened = even_channels(tower, {"guessed": {}, "measured": sized, "moved": ranges}[recipe.channels])
    for layer in [layer for layer, read in tower.layers.items() if _stays(ranges[read], recipe.float32)]:
        _give_back(tower, layer)
    round_weights(tower, Watched(tower, samples, scratch) if recipe.together else None)
    alone = {name for name, known in ranges.items() if known.alone} if recipe.two_rows else set()
    middle = evened | alone if recipe.zeros else set(names)
    found = Quantized(tower, {name: MIDDLE if name in middle else zero_of(ranges[name]) for name in names}, alone)
    return (found.move(ranges) or found) if recipe.subtracted else found


def _stays(known: Range, float32: frozenset[str]) -> bool:
    is_one = {"alone": known.alone, "activation": zero_of(known) != MIDDLE}
    return bool(float32) and all(is_one[kind] for kind in float32)


def _give_back(tower: Tower, layer: str) -> None:
    """The layer's matrix into the graph, which then computes it as before."""
    (node,) = (node for node in tower.model.graph.node if node.output[0] == layer)
    tower.add({node.input[1]: tower.matrices.pop(layer)})
    del tower.layers[layer]


def plant(graph: Path, count: int, out: Path) -> None:
    """Writes the tower with `count` channels of each normalisation that layers read 20 to 50 times as large, others in
    each: another function, with outliers as trained models have them."""
    tower, random = Tower.read(graph), np.random.default_rng(0)
    model = onnx.load(graph)
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and node.output[0] in tower.layers.values():
            (gain,) = (one for one in model.graph.initializer if one.name == node.input[1])
            values = numpy_helper.to_array(gain).copy()
            values[random.choice(len(values), count, replace=False)] *= random.uniform(20, 50, count)
            gain.CopyFrom(numpy_helper.from_array(values.astype(np.float32), gain.name))
    save(model, out)


def vectors(graph: Path, pixels: Vectors, *, as_written: bool = False) -> Vectors:
    """`as_written`: onnxruntime would compute products of unpacked weights with rounded activations."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return unit(
        np.concatenate(
            [session.run(None, {name: part})[0] for part in np.split(pixels, range(BATCH, len(pixels), BATCH))]
        )
    )


def line(name: str, ours: Vectors, exact: Vectors, size: int) -> str:
    """A row of the table; the converter's own measure, and the mean beside its worst."""
    parity = compare(ours, exact, 0, np.array([image.drawn for image in golden_images()]))
    distances = np.linalg.norm(exact[:, None].astype(np.float64) - exact[None], axis=-1)
    spread = distances.sum() / (len(exact) * (len(exact) - 1))
    mean = np.linalg.norm(ours - exact, axis=-1).mean() / spread
    return f"| {name} | {mean:.2%} | {parity.relative_error:.2%} | {parity.neighbours_kept:.1%} | {size / 2**20:.0f} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a converted model")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these lines of the table, from 1")
    parser.add_argument(
        "--outliers", type=int, default=0, metavar="N", help="channels of each normalisation made larger"
    )
    args = parser.parse_args(argv)
    chosen = RECIPES if args.only is None else [RECIPES[number - 1] for number in args.only]
    manifest = load_manifest(args.folder)
    spec = manifest.preprocess
    samples = pixel_samples(spec, None if "siglip" in manifest.family else 0)
    pixels = np.stack([preprocess_image(decode_image(image.blob), spec) for image in golden_images()])
    with tempfile.TemporaryDirectory() as folder:
        graph, out = Path(folder) / "vision.onnx", Path(folder) / "int8.onnx"
        if args.outliers:
            plant(args.folder / manifest.towers[VISION].variants["fp32"], args.outliers, graph)
        else:
            source = args.folder / manifest.towers[VISION].variants["fp32"]
            graph = Path(shutil.copy(source, folder))
            shutil.copy(source.with_name(f"{source.name}.data"), folder)
        exact = vectors(graph, pixels)
        print("| recipe | mean | worst | same 10 | MiB |\n|---|---:|---:|---:|---:|", flush=True)
        for recipe in chosen:
            found = quantized(graph, samples, recipe, Path(folder))
            (found.for_openvino if recipe.exact else found.for_onnxruntime)(out)
            size = out.with_name(f"{out.name}.data").stat().st_size
            print(line(recipe.name, vectors(out, pixels, as_written=recipe.exact), exact, size), flush=True)


if __name__ == "__main__":
    main()
