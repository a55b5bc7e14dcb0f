"""The bulk job against the server's ceiling: decoding and inference together, without files, journal or HTTP.

    python -m benchmarks.bulk --model vit-b-32 --models-dir onnx_models

Runs of both alternate in one process on the same images, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import PhotoKind, make_images
from clipsrv.bulk.deadline import Deadline
from clipsrv.bulk.job import Job, JobSettings
from clipsrv.bulk.prepare import Preparer
from clipsrv.bulk.records import BadFile
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.listing import Listing, write_listing
from clipsrv.bulk.stores.files import FileStore, begin_or_continue
from clipsrv.bulk.stores.outputs import writer_for
from clipsrv.bulk.stores.parts import INPUTS, NEW_INPUTS, Parts
from clipsrv.images.budget import PixelBudget
from clipsrv.machine import usable_cores
from clipsrv.models.folders import find_model
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ImageLimits, ModelSettings

BATCH, SHARD = 8, 256


class Silent:
    def begun(self, total: int, done: int) -> None: ...

    def advanced(self) -> None: ...

    def found_bad(self, bad: BadFile) -> None:
        raise AssertionError(bad)


def run_bulk(model: Model, folder: Path, cores: int) -> float:
    """Seconds from the first file to the finished .npy, `model` on one thread in as many streams as cores."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        out = Path(place, "out.npy")
        with closing(Parts(Path(place, "out.npy.parts"))) as parts:
            source = Inputs([str(folder)])
            listing = write_listing(source.entries(), parts.folder / NEW_INPUTS)
            facts = {"dimensions": model.manifest.dimensions}
            begin_or_continue(out, parts, facts, restart=False)
            listing = Listing(parts.folder / INPUTS, listing.count, listing.sha256)
            with closing(FileStore(out, parts, writer_for(out), facts)) as store:
                deadline = Deadline(0, Path(place, "late.jsonl"), lambda path: None)
                prepare = Preparer(source, model, ImageLimits(), PixelBudget(100_000_000), store, deadline)
                job = Job(
                    model, prepare, store, JobSettings(SHARD, BATCH, decode_threads=cores, streams=cores), Silent()
                )
                started = time.perf_counter()
                job.run(listing, lambda: False)
                store.finish()
                return time.perf_counter() - started


def run_ceiling(model: Model, blobs: Sequence[bytes], decode_threads: int) -> float:
    """Seconds to decode and embed `blobs` that are in memory, `decode_threads` decoding ahead of inference."""
    limits = ImageLimits()
    waiting: deque[Future[NDArray[np.float32]]] = deque()
    batch: list[NDArray[np.float32]] = []
    remaining = iter(blobs)
    started = time.perf_counter()
    with ThreadPoolExecutor(decode_threads) as pool:

        def refill() -> None:
            while len(waiting) < 2 * BATCH + decode_threads and (blob := next(remaining, None)) is not None:
                waiting.append(pool.submit(model.read_image, blob, limits))

        refill()
        while waiting:
            batch.append(waiting.popleft().result())
            refill()
            if len(batch) == BATCH or not waiting:
                model.image_encoder.embed(np.stack(batch))
                batch.clear()
    return time.perf_counter() - started


def run_streams(models: Sequence[Model], blobs: Sequence[bytes]) -> float:
    """Seconds when each model, on one thread, decodes and embeds its own share: the other way to use the cores."""

    def work(model: Model, share: Sequence[bytes]) -> None:
        for first in range(0, len(share), BATCH):
            pixels = [model.read_image(blob, ImageLimits()) for blob in share[first : first + BATCH]]
            model.image_encoder.embed(np.stack(pixels))

    started = time.perf_counter()
    with ThreadPoolExecutor(len(models)) as pool:
        shares = [blobs[number :: len(models)] for number in range(len(models))]
        list(pool.map(work, models, shares))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit-b-32")
    parser.add_argument("--models-dir", type=Path, default=Path("onnx_models"))
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", default="1024x768")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--streams", action="store_true", help="also one thread of inference in each of as many streams as cores"
    )
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    cores, found = usable_cores(), find_model(args.models_dir, args.model)
    model, single = (
        load_model(found, ModelSettings("cpu", args.precision, threads, text=False)) for threads in (cores, 1)
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        blobs = make_images(PhotoKind(width, height), args.images, folder)
        ways: dict[str, Callable[[], float]] = {
            "ceiling": lambda: run_ceiling(model, blobs, cores),
            "bulk": lambda: run_bulk(single, folder, cores),
        }
        if args.streams:
            ways["streams"] = lambda: run_streams([single] * cores, blobs)
        run_ceiling(model, blobs[: 2 * BATCH], cores)  # warm
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds):
            for name in sorted(ways, reverse=bool(number % 2)):
                rates[name].append(args.images / ways[name]())
            print("  ".join(f"{name} {values[-1]:.2f}" for name, values in rates.items()), flush=True)
    ratios = [bulk / ceiling for bulk, ceiling in zip(rates["bulk"], rates["ceiling"], strict=True)]
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.2f} images/s of {args.rounds} rounds")
    print(
        f"bulk / ceiling: median {statistics.median(ratios):.3f}, lowest {min(ratios):.3f}, highest {max(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
