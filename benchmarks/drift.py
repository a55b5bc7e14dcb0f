"""What --fast-decode changes, by how far the JPEG is kept above the resized edge: pixels, vectors, neighbours, time."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import PhotoKind, make_images
from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image, resize_and_crop
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings

_MARGINS = (1, 2, 4)
_NEIGHBOURS = 5
_IMAGES = PhotoKind(2016, 1512, quality=92)
_CACHE = Path(__file__).parents[1] / "build" / "bench" / "images"


def _look(model: Model, blobs: list[bytes], margin: int | None) -> tuple[NDArray[np.int16], NDArray[np.float32], float]:
    """Levels (n, S, S, 3), unit vectors (n, dimensions) and CPU milliseconds of decoding an image."""
    spec = model.manifest.preprocess
    reduce_to = None if margin is None else margin * spec.shortest_edge
    levels, pixels, cpu = [], [], 0.0
    for blob in blobs:
        begin = time.thread_time()
        image = decode_image(blob, reduce_to=reduce_to)
        values = preprocess_image(image, spec)
        cpu += time.thread_time() - begin
        levels.append(resize_and_crop(image, spec).astype(np.int16))
        pixels.append(values)
    vectors = [model.image_encoder.embed(np.stack(pixels[at : at + 8])) for at in range(0, len(pixels), 8)]
    return np.stack(levels), np.concatenate(vectors), 1000 * cpu / len(blobs)


def _neighbours(vectors: NDArray[np.float32], among: NDArray[np.float32]) -> list[set[int]]:
    """The nearest of `among` for each vector, itself left out."""
    nearness = vectors @ among.T
    np.fill_diagonal(nearness, -2)
    return [set(row) for row in np.argsort(-nearness, axis=1)[:, :_NEIGHBOURS].tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("model")
    parser.add_argument("count", type=int, nargs="?", default=48, help="images (default 48)")
    args = parser.parse_args()
    name, count = args.model, args.count
    model = load_model(args.models_dir / name, ModelSettings("cpu", "fp32", text=False))
    blobs = make_images(_IMAGES, count, _CACHE)
    exact_levels, exact, exact_cpu = _look(model, blobs, None)
    gaps = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    spread = gaps[~np.eye(count, dtype=bool)].mean()
    known = _neighbours(exact, exact)
    print(f"{name}, {count} images of {_IMAGES.name}, exact decoding {exact_cpu:.1f} CPU ms, spread {spread:.4f}\n")
    print("| margin | CPU ms | mean level | worst level | mean error / spread | worst | same neighbours |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for margin in _MARGINS:
        levels, vectors, cpu = _look(model, blobs, margin)
        off, apart = np.abs(levels - exact_levels), np.linalg.norm(vectors - exact, axis=1) / spread
        pairs = zip(_neighbours(vectors, exact), known, strict=True)
        kept = np.mean([len(mine & theirs) / _NEIGHBOURS for mine, theirs in pairs])
        print(
            f"| {margin} | {cpu:.1f} | {off.mean():.3f} | {off.max()} "
            f"| {100 * apart.mean():.2f} % | {100 * apart.max():.2f} % | {100 * kept:.1f} % |"
        )


if __name__ == "__main__":
    main()
