"""A converted model beside its original in transformers, on the same cores and in turns: images a second.

    python -m benchmarks.beside_transformers MODEL_FOLDER CHECKPOINT [--precision int8] [--batch 8] [--rounds 5]

Only the towers are timed: both are given the same pixels. Needs the `convert` extra.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from clipsrv.machine import usable_cores
from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.beside_transformers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model", type=Path, help="the converted folder")
    parser.add_argument("checkpoint", type=Path, help="the folder it was made from")
    parser.add_argument("--precision", action="append", default=[], help="beside fp32; may be repeated")
    parser.add_argument("--device", default="cpu", help="cpu or openvino")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(usable_cores())
    original = AutoModel.from_pretrained(options.checkpoint).eval()
    runners: dict[str, Callable[[NDArray[np.float32]], object]] = {}
    side = 0
    for precision in ("fp32", *options.precision):
        settings = ModelSettings(device=options.device, precision=precision, threads=usable_cores(), text=False)
        model = load_model(options.model, settings)
        side = model.manifest.preprocess.crop_size
        runners[precision] = model.image_encoder.embed

    def ask(pixels: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return original.get_image_features(pixel_values=torch.from_numpy(pixels))

    runners = {"transformers": ask, **runners}
    pixels = np.random.default_rng(0).standard_normal((options.batch, 3, side, side)).astype(np.float32)
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(options.rounds + 1):  # the first warms up
        for name, run in runners.items():
            began = time.perf_counter()
            run(pixels)
            if turn:
                rates[name].append(options.batch / (time.perf_counter() - began))
    base = statistics.median(rates["transformers"])
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:13} {rate:8.2f} images/s  {rate / base:5.2f}x  ({min(found):.2f} to {max(found):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
