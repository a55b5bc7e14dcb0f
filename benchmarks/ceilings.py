"""What the parts could do alone: the engine on ready pixels, and decoding.

    python -m benchmarks.ceilings MODELS_DIR MODEL IMAGES_DIR SECONDS [clipsrv flags]

Prints JSON. Runs in its own process, so that it gets the cores and the threads that the server would get.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.loads import EIGHT, PHONES
from benchmarks.photos import make_images
from clipsrv.cli import read_config
from clipsrv.images.decode import reuse_memory
from clipsrv.models.model import Model
from clipsrv.server.app import open_library
from clipsrv.settings import ImageLimits, serving_settings


def _engine_alone(model: Model, batch_size: int, seconds: float) -> float:
    """Images a second of the vision tower on `batch_size` ready images at a time."""
    size = model.manifest.preprocess.crop_size
    pixels = np.random.default_rng(0).normal(size=(batch_size, 3, size, size)).astype(np.float32)
    return batch_size * _rate(lambda: model.image_encoder.embed(pixels), seconds)


def _decode_alone(model: Model, blobs: list[bytes], threads: int, limits: ImageLimits, seconds: float) -> float:
    """Images a second from encoded bytes to pixels, by `threads` threads that do nothing else."""
    end = time.monotonic() + seconds

    def work(cycle: Iterator[bytes]) -> int:
        count = 0
        while time.monotonic() < end:
            model.read_image(next(cycle), limits)
            count += 1
        return count

    begin = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        cycles = [itertools.cycle(blobs[index:] + blobs[:index]) for index in range(threads)]
        return sum(pool.map(work, cycles)) / (time.monotonic() - begin)


def _rate(step: Callable[[], object], seconds: float) -> float:
    step()
    begin, count = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        step()
        count += 1
    return count / (time.monotonic() - begin)


def _measure(arguments: list[str], images: Path, seconds: float) -> dict[str, float]:
    config = read_config(arguments)
    model, settings = open_library(config).load(config.model), serving_settings(config)
    reuse_memory(settings.decode_threads)
    found: dict[str, float] = {}
    for size in (1, 8, 16):
        found[f"engine alone, batch {size}"] = _engine_alone(model, size, seconds / 2)
    for load in (EIGHT, PHONES):
        blobs = make_images(load.photo, load.distinct, images)
        found[f"decoding alone, {load.photo.name}"] = _decode_alone(
            model, blobs, settings.decode_threads, settings.limits, seconds / 2
        )
    return found


if __name__ == "__main__":
    models_dir, model_name, images_dir, length, *flags = sys.argv[1:]
    command = ["--models-dir", models_dir, "--model", model_name, *flags]
    print(json.dumps(_measure(command, Path(images_dir), float(length))))
