"""What each precision of a vision tower costs and loses: python -m benchmarks.precision onnx_models/vit-b-32.

Writes every candidate graph, checks each against fp32, and times them in turn, so that a busy machine slows all alike.
Candidates that the installed onnxruntime cannot run (the OpenVINO ones need clipsrv[openvino]) are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from PIL import Image

from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image
from clipsrv.manifest import VISION, load_manifest
from clipsrv.providers.provider import DevicePlan
from clipsrv.providers.table import provider
from clipsrv.runtime.session import open_session
from clipsrv.runtime.vectors import unit
from clipsrv.specs import PreprocessSpec
from conversions.activations import Samples
from conversions.quantize import Quantized
from conversions.samples import sample_images

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    name: str
    make: Callable[[Path, Path, Pixels], None] | None
    device: str = "cpu"
    precision: str = "fp32"


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, pixels: Pixels) -> None:
        self._batches = iter({name: image[None]} for image in pixels)

    def get_next(self) -> dict[str, Pixels] | None:
        return next(self._batches, None)


def _samples(pixels: Pixels) -> Samples:
    *learnt, judging = np.array_split(pixels, 4)
    return Samples(learnt, taken=0, further=[judging])


def _rows(graph: Path, out: Path, pixels: Pixels) -> None:
    Quantized.of(graph, _samples(pixels)).for_onnxruntime(out)


def _rows_alone(graph: Path, out: Path, pixels: Pixels) -> None:
    Quantized.of(graph).for_onnxruntime(out)


def _unpacked(graph: Path, out: Path, pixels: Pixels) -> None:
    Quantized.of(graph, _samples(pixels)).for_openvino(out)


def _dynamic(graph: Path, out: Path, pixels: Pixels) -> None:
    quantize_dynamic(
        graph,
        out,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=[_projection(graph)],
        extra_options={"MatMulConstBOnly": True},
    )


def _static(graph: Path, out: Path, pixels: Pixels) -> None:
    source = onnx.load(graph, load_external_data=False).graph.input[0].name
    quantize_static(
        graph,
        out,
        _Reader(source, pixels[:16]),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=[_projection(graph)],
        extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
    )


def _projection(graph: Path) -> str:
    """The node left in fp32, as conversions.quantize leaves it, so that schemes and not choices are compared."""
    model = onnx.load(graph, load_external_data=False)
    return next(str(n.name) for n in model.graph.node if n.output[0] == model.graph.output[0].name)


CANDIDATES = (
    Candidate("fp32", None),
    Candidate("int8 by row", _rows),
    Candidate("int8 by row, no samples", _rows_alone),
    Candidate("int8 static", _static),
    Candidate("int8 dynamic", _dynamic),
    Candidate("openvino fp32", None, "openvino"),
    Candidate("openvino bf16", None, "openvino", "bf16"),
    Candidate("openvino int8", _unpacked, "openvino", "int8"),
    Candidate("openvino int8 static", _static, "openvino"),
)


def pixels_of(images: Sequence[Image.Image], spec: PreprocessSpec) -> Pixels:
    out = np.empty((len(images), 3, spec.crop_size, spec.crop_size), np.float32)
    for index, image in enumerate(images):
        preprocess_image(image, spec, out[index])
    return out


def _encode(session: ort.InferenceSession, pixels: Pixels, batch: int) -> Pixels:
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: pixels[at : at + batch]})[0] for at in range(0, len(pixels), batch)]
    return unit(np.concatenate(parts))


def quality(session: ort.InferenceSession, exact: Pixels, pixels: Pixels) -> str:
    return quality_of(_encode(session, pixels, 8), exact)


def quality_of(ours: Pixels, exact: Pixels) -> str:
    """Mean and worst error over the mean distance between exact vectors; agreement of the 1 and 10 nearest others."""
    spread = np.linalg.norm(exact[:, None] - exact[None], axis=-1)[np.triu_indices(len(exact), 1)].mean()
    error = np.linalg.norm(ours - exact, axis=-1) / spread
    recalls = []
    for count in (1, 10):
        near, truth = _nearest(ours, count), _nearest(exact, count)
        pairs = zip(near, truth, strict=True)
        recalls.append(np.mean([len(set(a) & set(b)) / count for a, b in pairs]))
    return f"{error.mean():9.3%} {error.max():9.3%} {recalls[0]:8.1%} {recalls[1]:8.1%}"


def batch_dependence(session: ort.InferenceSession, image: Pixels) -> float:
    """Largest relative change of one image's vector when it is encoded beside itself and beside outliers."""
    name = session.get_inputs()[0].name
    alone = session.run(None, {name: image[None]})[0][0]
    noise = np.random.default_rng(0).normal(0, 30, (4, *image.shape)).astype(np.float32)
    twin = session.run(None, {name: np.stack([image, image])})[0][1]
    beside = session.run(None, {name: np.stack([*noise[:2], image, *noise[2:]])})[0][2]
    return max(float(np.linalg.norm(other - alone) / np.linalg.norm(alone)) for other in (twin, beside))


def throughput(
    sessions: dict[str, ort.InferenceSession], pixels: Pixels, batches: Sequence[int], rounds: int, seconds: float
) -> dict[str, dict[int, float]]:
    """Median images per second by candidate and batch size, of rounds in which every candidate has its turn."""
    rates: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in batches} for name in sessions}
    for _ in range(rounds):
        for batch in batches:
            for name, session in sessions.items():
                feed = {session.get_inputs()[0].name: pixels[:batch]}
                session.run(None, feed)
                started, done = time.perf_counter(), 0
                while (took := time.perf_counter() - started) < seconds:
                    session.run(None, feed)
                    done += batch
                rates[name][batch].append(done / took)
    return {name: {batch: statistics.median(r) for batch, r in row.items()} for name, row in rates.items()}


def _nearest(vectors: Pixels, count: int) -> NDArray[np.intp]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1)[:, :count]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a converted model")
    parser.add_argument("--images", type=Path, help="folder of images to judge by (default: synthetic ones)")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    args = parser.parse_args()
    if args.count < 12:
        parser.error("--count must be 12 or more: ten neighbours are compared")

    manifest = load_manifest(args.folder)
    graph = args.folder / manifest.towers[VISION].variants["fp32"]
    images = list(sample_images(args.count, 1))
    if args.images:
        files = sorted(path for path in args.images.iterdir() if path.is_file())[: args.count]
        images = [decode_image(path.read_bytes()) for path in files]
    pixels = pixels_of(images, manifest.preprocess)
    calibration = pixels_of(list(sample_images(64, 2)), manifest.preprocess)

    sessions: dict[str, ort.InferenceSession] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for candidate in CANDIDATES:
            if provider(candidate.device).onnx_name not in ort.get_available_providers():
                continue
            path = graph
            if candidate.make is not None:
                path = Path(scratch) / f"{candidate.make.__name__}.onnx"
                if not path.exists():
                    candidate.make(graph, path, calibration)
            plan = DevicePlan(candidate.device, args.threads, candidate.precision)
            sessions[candidate.name] = open_session(path, plan)
        exact = _encode(sessions["fp32"], pixels, 8)
        print(f"onnxruntime {ort.__version__}, {args.threads} threads, {len(pixels)} images")
        print(f"{'candidate':22}{'error':>9} {'worst':>9} {'same 1':>8} {'same 10':>8} {'batch-mates':>12}")
        for name, session in sessions.items():
            print(f"{name:22}{quality(session, exact, pixels)} {batch_dependence(session, pixels[0]):12.2e}")
        rates = throughput(sessions, pixels, args.batches, args.rounds, args.seconds)
    print(f"\n{'images/s':22}" + "".join(f"{f'batch {batch}':>18}" for batch in args.batches))
    for name, row in rates.items():
        cells = (f"{rate:8.1f} ({rate / rates['fp32'][batch]:4.2f}x)" for batch, rate in row.items())
        print(f"{name:22}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
