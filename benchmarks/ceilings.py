"""What the parts could do without a server: the engine on ready pixels, decoding alone, and both without HTTP.

    python -m benchmarks.ceilings MODELS_DIR MODEL PICTURES_DIR SECONDS [clipsrv flags]

Prints JSON. Runs in its own process, so that it gets the cores and the threads that the server would get.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.loads import EIGHT, PHONES, Load
from benchmarks.photos import make_pictures
from clipsrv.cli import read_config
from clipsrv.embedder import Embedder
from clipsrv.model import Model
from clipsrv.server.app import embedder_settings, model_loader


def _engine_alone(model: Model, batch_size: int, seconds: float) -> float:
    """Images a second of the vision tower on `batch_size` ready pictures at a time."""
    size = model.manifest.preprocess.crop_size
    pixels = np.random.default_rng(0).normal(size=(batch_size, 3, size, size)).astype(np.float32)
    return batch_size * _rate(lambda: model.image_encoder.encode(pixels), seconds)


def _decode_alone(model: Model, blobs: list[bytes], threads: int, seconds: float) -> float:
    """Images a second from encoded bytes to pixels, by `threads` threads that do nothing else."""
    limits, end = embedder_settings(read_config([])).limits, time.monotonic() + seconds

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


async def _no_http(embedder: Embedder, blobs: list[bytes], load: Load, warm_up: float, seconds: float) -> float:
    """Images a second of the server's own pools and batcher, fed by as many callers as the load has."""
    cycle, done = itertools.cycle(blobs), 0

    async def call() -> None:
        nonlocal done
        while True:
            await embedder.embed_images([next(cycle)])
            done += 1

    callers = [asyncio.create_task(call()) for _ in range(load.callers)]
    await asyncio.sleep(warm_up)
    before, begin = done, time.monotonic()
    await asyncio.sleep(seconds)
    rate = (done - before) / (time.monotonic() - begin)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    return rate


def _rate(step: Callable[[], object], seconds: float) -> float:
    step()
    begin, count = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        step()
        count += 1
    return count / (time.monotonic() - begin)


async def _measure(arguments: list[str], pictures: Path, seconds: float) -> dict[str, float]:
    config = read_config(arguments)
    embedder = Embedder(model_loader(config), embedder_settings(config))
    await embedder.start()
    model = embedder.model
    assert model is not None
    found: dict[str, float] = {}
    threads = embedder_settings(config).decode_threads
    for size in (1, 8, 16):
        found[f"engine alone, batch {size}"] = await asyncio.to_thread(_engine_alone, model, size, seconds / 2)
    for load in (EIGHT, PHONES):
        blobs = make_pictures(load.picture, load.distinct, pictures)
        found[f"decoding alone, {load.picture.name}"] = await asyncio.to_thread(
            _decode_alone, model, blobs, threads, seconds / 2
        )
        found[f"no HTTP, {load.name}"] = await _no_http(embedder, blobs, load, 1.0, seconds)
    await embedder.stop()
    return found


if __name__ == "__main__":
    models_dir, model_name, pictures_dir, length, *flags = sys.argv[1:]
    command = ["--models-dir", models_dir, "--model", model_name, *flags]
    print(json.dumps(asyncio.run(_measure(command, Path(pictures_dir), float(length)))))
