"""What int8 costs texts: python -m benchmarks.precision_texts onnx_models/demo --images FOLDER

FOLDER holds images named as their texts (a-red-heart.png). Texts in int8 are compared with fp32 as benchmarks.precision
compares images, and searched with: how often a text finds its image among the first ten.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.precision import pixels_of, quality_of
from clipsrv.images.decode import decode_image
from clipsrv.machine import usable_cores
from clipsrv.manifest import TEXT, VISION, ModelManifest, load_manifest
from clipsrv.models.texts import embed_tokens
from clipsrv.providers.cpu import CPU
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.encoder import Encoder, SessionEncoder, TextEncoder
from clipsrv.runtime.session import open_session
from clipsrv.runtime.vectors import Vectors
from clipsrv.text.opening import open_tokenizer
from clipsrv.text.tokens import Tokens
from conversions.quantize import Quantized
from conversions.samples import pixel_samples

_BATCH, _RECALL = 32, 10


def _small_table(kind: str) -> Callable[[Path, Path], None]:
    """The graph with its largest table of tokens rounded: to fp16, or to 8 bits a row."""

    def make(graph: Path, out: Path) -> None:
        model = onnx.load(graph)
        tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
        table = max((t for t in model.graph.initializer if t.name in tables), key=lambda t: int(np.prod(t.dims)))
        values = numpy_helper.to_array(table)
        step = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12) / 127
        rounded = values.astype(np.float16) if kind == "fp16" else np.rint(values / step) * step
        table.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), table.name))
        onnx.save(model, out, save_as_external_data=True, location=f"{out.name}.data", size_threshold=1024)

    return make


def _int8(graph: Path, out: Path) -> None:
    Quantized.of(graph).for_onnxruntime(out)


CANDIDATES: dict[str, Callable[[Path, Path], None]] = {
    "fp32, tokens in fp16": _small_table("fp16"),
    "fp32, tokens in 8 bits": _small_table("int8"),
    "int8": _int8,
}


def _open(graph: Path, manifest: ModelManifest, tower: str) -> SessionEncoder:
    session = open_session(graph, DevicePlan(CPU.device, usable_cores()))
    return SessionEncoder(session, manifest.towers[tower], manifest.dimensions)


def _texts(encoder: TextEncoder, tokens: Sequence[Tokens]) -> Vectors:
    parts = [tokens[at : at + _BATCH] for at in range(0, len(tokens), _BATCH)]
    return np.concatenate([embed_tokens(encoder, part, CPU.run_cost) for part in parts])


def _images(encoder: Encoder, pixels: NDArray[np.float32]) -> Vectors:
    return np.concatenate([encoder.embed(pixels[at : at + 8]) for at in range(0, len(pixels), 8)])


def _mates(encoder: TextEncoder, tokens: Sequence[Tokens]) -> float:
    """Largest change of one text's vector beside others, padded to the longest of them and to the whole context."""
    one = tokens[0]
    alone = encoder.embed(one.ids[None, : one.length])[0]
    longest = max(other.length for other in tokens)
    beside = encoder.embed(np.stack([other.ids[:longest] for other in tokens]))[0]
    padded = encoder.embed(np.stack([other.ids for other in tokens]))[0]
    return max(float(np.linalg.norm(other - alone)) for other in (beside, padded))


def recall(texts: Vectors, images: Vectors) -> float:
    """Share of the texts whose own image, of the same row, is among the first ten that they find."""
    scores = texts @ images.T
    better = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return float((better < _RECALL).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a converted model")
    parser.add_argument("--images", type=Path, required=True, help="folder of images named as their texts")
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()

    manifest = load_manifest(args.folder)
    spec = manifest.towers[TEXT]
    if spec.tokenizer is None:
        parser.error(f"{args.folder} has no tokenizer")
    files = sorted(path for path in args.images.iterdir() if path.is_file())
    files = files[:: -(-len(files) // args.count)]
    tokenizer = open_tokenizer(args.folder / spec.tokenizer, spec)
    tokens = [tokenizer.encode(path.stem.replace("-", " ")) for path in files]
    pixels = pixels_of([decode_image(path.read_bytes()) for path in files], manifest.preprocess)

    print(f"{len(files)} texts\n{'':24}{'error':>9} {'worst':>9} {'same 1':>8} {'same 10':>8} {'batch-mates':>12}")
    with tempfile.TemporaryDirectory() as scratch:
        texts = {"fp32": _texts(_open(args.folder / spec.variants["fp32"], manifest, TEXT), tokens)}
        for number, (name, make) in enumerate(CANDIDATES.items()):
            graph = Path(scratch) / f"{number}.onnx"
            make(args.folder / spec.variants["fp32"], graph)
            encoder = _open(graph, manifest, TEXT)
            texts[name] = _texts(encoder, tokens)
            print(f"{name:24}{quality_of(texts[name], texts['fp32'])} {_mates(encoder, tokens[:8]):12.2e}")
        graph = args.folder / manifest.towers[VISION].variants["fp32"]
        samples = pixel_samples(manifest.preprocess, taken=0)
        Quantized.of(graph, samples).for_onnxruntime(Path(scratch) / "vision.onnx")
        exact = _images(_open(graph, manifest, VISION), pixels)
        rounded = _images(_open(Path(scratch) / "vision.onnx", manifest, VISION), pixels)
    print(f"\nown image among the first {_RECALL}, of {len(files)}")
    for name, of_texts, of_images in (
        ("images and texts in fp32", texts["fp32"], exact),
        ("images in int8", texts["fp32"], rounded),
        ("images and texts in int8", texts["int8"], rounded),
    ):
        print(f"{name:26}{recall(of_texts, of_images):7.1%}")


if __name__ == "__main__":
    main()
