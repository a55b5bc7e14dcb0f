"""What the parts could do alone: the engine on ready pixels and token ids beside this machine's peak, and decoding.

    python -m benchmarks.ceilings MODELS_DIR MODEL IMAGES_DIR SECONDS [clipsrv flags]

Prints JSON, the fields of results.Ceilings. Runs in its own process, so that it gets the cores and the threads that the
server would get.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.limit import Operator, Peak, bandwidth, operators
from benchmarks.loads import EIGHT, PHONES
from benchmarks.photos import make_images
from benchmarks.phrases import make_texts
from benchmarks.results import Ceilings
from clipsrv.cli import read_config
from clipsrv.images.decode import reuse_memory
from clipsrv.manifest import TEXT, VISION
from clipsrv.models.model import Model
from clipsrv.runtime.choice import graph_file
from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.packing import pack
from clipsrv.server.app import open_library
from clipsrv.settings import ImageLimits, serving_settings

_IMAGES, _TEXTS, _PROFILED = (1, 8, 16), (1, 8, 32), 8


class Bench:
    """One model, whose parts are measured for `seconds` each beside the machine's peak of the same arithmetic."""

    def __init__(self, model: Model, folder: Path, seconds: float) -> None:
        self._model, self._folder, self._seconds = model, folder, seconds
        size = model.manifest.preprocess.crop_size
        self._pixels = np.random.default_rng(0).normal(size=(max(_IMAGES), 3, size, size)).astype(np.float32)
        self.found = Ceilings(bandwidth=bandwidth(model.threads))

    def engines(self) -> None:
        """Both towers, and what they consist of."""
        self._tower("images", VISION, self._model.image_encoder, [self._pixels[:size] for size in _IMAGES])
        if (texts := self._model.text_encoder) is not None:
            self._tower("texts", TEXT, texts, [self._ids(size) for size in _TEXTS], packed=texts.packs)

    def decoding(self, images: Path, limits: ImageLimits) -> None:
        """From encoded bytes to pixels, on as many threads as the engine has."""
        reuse_memory(self._model.threads)
        for load in (EIGHT, PHONES):
            blobs = make_images(load.photo, 12, images)
            self.found.rates[f"decoding alone, {load.photo.name}"] = self._decode(blobs, limits)

    def _tower(
        self, what: str, tower: str, encoder: Encoder, batches: list[NDArray[Any]], *, packed: bool = False
    ) -> None:
        spec, threads = self._model.manifest.towers[tower], self._model.threads
        graph = graph_file(spec, self._model.device, self._model.precision)
        precision = "int8" if "int8" in graph else "fp32"
        peak = Peak(precision, threads)
        for batch in batches:
            inputs = pack(batch)._asdict() if packed else {spec.input: batch}
            parts = operators(self._folder / graph, inputs, runs=5 if len(batch) == _PROFILED else 1)
            each = sum(part.operations for part in parts) / len(batch)
            if len(batch) == _PROFILED:
                self._note(what, precision, each, parts)
            before = peak.measure()
            rate = len(batch) * _rate(partial(encoder.embed, batch), self._seconds)
            best = (before + peak.measure()) / 2
            name = f"engine alone, {what}, batches of {len(batch)}"
            self.found.rates[name], self.found.shares[name] = rate, rate * each / best
            self.found.peaks[precision] = max(best, self.found.peaks.get(precision, 0.0))

    def _note(self, what: str, precision: str, each: float, parts: list[Operator]) -> None:
        """What a tower consists of, beside the peak of the one core that it was profiled on."""
        one_core, whole = Peak(precision, 1).measure(), sum(part.seconds for part in parts)
        self.found.work[what] = each
        self.found.operators[what] = [
            (part.name, part.seconds / whole, part.operations / max(part.seconds, 1e-9) / one_core) for part in parts
        ]

    def _ids(self, count: int) -> NDArray[np.int64]:
        """Token ids of the first texts that servers are asked for, filled up to the longest."""
        assert self._model.tokenizer is not None
        tokens = [self._model.tokenizer.encode(text) for text in make_texts(count)]
        longest = max(one.length for one in tokens)
        return np.stack([one.ids[:longest] for one in tokens])

    def _decode(self, blobs: list[bytes], limits: ImageLimits) -> float:
        end, threads = time.monotonic() + self._seconds, self._model.threads

        def work(cycle: Iterator[bytes]) -> int:
            count = 0
            while time.monotonic() < end:
                self._model.read_image(next(cycle), limits)
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


def main() -> None:
    models_dir, model_name, images_dir, length, *flags = sys.argv[1:]
    config = read_config(["--models-dir", models_dir, "--model", model_name, *flags])
    bench = Bench(open_library(config).load(config.model), Path(models_dir, model_name), float(length) / 2)
    bench.engines()
    bench.decoding(Path(images_dir), serving_settings(config).limits)
    print(json.dumps(asdict(bench.found)))


if __name__ == "__main__":
    main()
