"""What --fast-decode changes, by how far the JPEG is kept above the resized edge: pixels, vectors, neighbours, time.

python -m benchmarks.drift onnx_models vit-b-32 ...    # models that are converted
python -m benchmarks.drift                             # pixels alone, of every preprocessing that known models have
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import PhotoKind, make_images
from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings
from clipsrv.specs import PreprocessSpec

_MARGINS = (1, 2, 4)
_NEIGHBOURS = 5
_IMAGES = PhotoKind(2016, 1512, quality=92)
_CACHE = Path(__file__).parents[1] / "build" / "bench" / "images"
_HALF = (0.5, 0.5, 0.5)
#: What known models do before the vector: none of it but the edge, the filter and the crop changes what is lost.
PREPROCESSINGS: Mapping[str, PreprocessSpec] = {
    "CLIP, 224 pixels": PreprocessSpec(224, 224, _HALF, _HALF),
    "CLIP, 336 pixels": PreprocessSpec(336, 336, _HALF, _HALF),
    "Chinese-CLIP, 224 pixels": PreprocessSpec(224, 224, _HALF, _HALF, resize="squash"),
    "SigLIP, 224 pixels": PreprocessSpec(224, 224, _HALF, _HALF, resize="squash", resample="bilinear"),
    "SigLIP, 256 pixels": PreprocessSpec(256, 256, _HALF, _HALF, resize="squash", resample="bilinear"),
    "SigLIP, 384 pixels": PreprocessSpec(384, 384, _HALF, _HALF, resize="squash", resample="bilinear"),
    "SigLIP, 512 pixels": PreprocessSpec(512, 512, _HALF, _HALF, resize="squash", resample="bilinear"),
}

Levels = NDArray[np.int16]
Pixels = NDArray[np.float32]


def look(spec: PreprocessSpec, blobs: Sequence[bytes], margin: int | None) -> tuple[Levels, Pixels, float]:
    """Levels (n, S, S, 3), pixels (n, 3, S, S) and CPU milliseconds of decoding an image; exact without a margin."""
    reduce_to = None if margin is None else margin * spec.shortest_edge
    levels, pixels, cpu = [], [], 0.0
    for blob in blobs:
        begin = time.thread_time()
        image = decode_image(blob, reduce_to=reduce_to)
        values = preprocess_image(image, spec)
        cpu += time.thread_time() - begin
        levels.append(resize_and_crop(image, spec).astype(np.int16))
        pixels.append(values)
    return np.stack(levels), np.stack(pixels), 1000 * cpu / len(blobs)


def _vectors(model: Model, pixels: Pixels) -> NDArray[np.float32]:
    return np.concatenate([model.image_encoder.embed(pixels[at : at + 8]) for at in range(0, len(pixels), 8)])


def _neighbours(vectors: NDArray[np.float32], among: NDArray[np.float32]) -> list[set[int]]:
    """The nearest of `among` for each vector, itself left out."""
    nearness = vectors @ among.T
    np.fill_diagonal(nearness, -2)
    return [set(row) for row in np.argsort(-nearness, axis=1)[:, :_NEIGHBOURS].tolist()]


def rows(name: str, spec: PreprocessSpec, blobs: Sequence[bytes], model: Model | None) -> list[str]:
    """Of each margin a row of the table; vectors where there is a model."""
    exact_levels, pixels, cpu = look(spec, blobs, None)
    made = [f"| {name} | exact | {cpu:.1f} | | | | | |"]
    if model is not None:
        exact = _vectors(model, pixels)
        gaps = np.linalg.norm(exact[:, None] - exact[None], axis=2)
        spread, known = gaps[~np.eye(len(blobs), dtype=bool)].mean(), _neighbours(exact, exact)
    for margin in _MARGINS:
        levels, pixels, cpu = look(spec, blobs, margin)
        off = np.abs(levels - exact_levels)
        row = f"| {name} | {margin} | {cpu:.1f} | {off.mean():.3f} | {off.max()} |"
        if model is not None:
            vectors = _vectors(model, pixels)
            apart = np.linalg.norm(vectors - exact, axis=1) / spread
            pairs = zip(_neighbours(vectors, exact), known, strict=True)
            kept = np.mean([len(mine & theirs) / _NEIGHBOURS for mine, theirs in pairs])
            row += f" {100 * apart.mean():.2f} % | {100 * apart.max():.2f} % | {100 * kept:.1f} % |"
        made.append(row if model else row + " | | |")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models_dir", type=Path, nargs="?")
    parser.add_argument("models", nargs="*", metavar="model")
    parser.add_argument("--count", type=int, default=48, help="images (default 48)")
    args = parser.parse_args()
    blobs = make_images(_IMAGES, args.count, _CACHE)
    print(f"{args.count} images of {_IMAGES.name}\n")
    print("| model | margin | CPU ms | mean level | worst level | mean error / spread | worst | same neighbours |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    if not args.models:
        for name, spec in PREPROCESSINGS.items():
            print("\n".join(rows(name, spec, blobs, None)), flush=True)
    for name in args.models:
        model = load_model(args.models_dir / name, ModelSettings("cpu", "fp32", text=False))
        print("\n".join(rows(name, model.manifest.preprocess, blobs, model)), flush=True)


if __name__ == "__main__":
    main()
