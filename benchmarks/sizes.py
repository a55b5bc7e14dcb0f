"""Models of several sizes side by side: the speed of their image towers, and the memory of a process that serves.

    python -m benchmarks.sizes onnx_models/vit-b-32 onnx_models/siglip2-b-16-256 ... [--rounds 7]

The first is what the others are told beside, in fp32. Speeds are of one thread in seconds of the processor, in turns,
the fastest of each, so that what else the machine does matters little; memory is of a process for each model, with
both towers and a batch. Prints what clipsrv/models/shapes.py holds.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsrv.manifest import load_manifest
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings

PRECISIONS = ("fp32", "int8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="converted folders")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", choices=PRECISIONS, help="only print the peak memory of one model, in GiB")
    options = parser.parse_args(arguments)
    if options.memory_of:
        print(f"{_own_memory(options.models[0], options.memory_of, options.batch):.2f}")
        return 0
    speeds = _speeds(options.models, options.batch, options.rounds)
    base = speeds[options.models[0], "fp32"]
    print(f"{options.models[0].name}, fp32: {base:.1f} images for each second of one core, batches of {options.batch}")
    for (folder, precision), speed in speeds.items():
        command = (sys.executable, "-m", "benchmarks.sizes", str(folder), "--memory-of", precision)
        memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"{folder.name:<24} {precision:<5} {speed / base:6.2f} times {memory:>6} GiB", flush=True)
    return 0


def _speeds(folders: Sequence[Path], batch: int, rounds: int) -> dict[tuple[Path, str], float]:
    """Images for each second of one core, by model and precision: the fastest of `rounds` batches, in turns."""
    there = [(folder, one) for folder in folders for one in PRECISIONS if one in _precisions(folder)]
    models = {key: _open(*key, text=False) for key in there}
    rates: dict[tuple[Path, str], list[float]] = {key: [] for key in models}
    for turn in range(rounds + 1):  # the first warms up
        for key, model in models.items():
            pixels = _pixels(model, batch)
            began = time.process_time()
            model.image_encoder.embed(pixels)
            if turn:
                rates[key].append(batch / (time.process_time() - began))
    return {key: max(found) for key, found in rates.items()}


def _own_memory(folder: Path, precision: str, batch: int) -> float:
    model = _open(folder, precision, text=True)
    model.image_encoder.embed(_pixels(model, batch))
    assert model.text_encoder is not None
    assert model.tokenizer is not None
    tokens = model.tokenizer.encode("a photo")
    model.text_encoder.embed(tokens.ids[None, : tokens.length])
    # Not getrusage: that also counts what the process was before it became this program.
    most = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert most is not None
    return int(most[1]) / 2**20


def _open(folder: Path, precision: str, *, text: bool) -> Model:
    settings = ModelSettings(device="cpu", precision=precision, threads=1, text=text)
    return load_model(folder, settings)


def _precisions(folder: Path) -> set[str]:
    return set(load_manifest(folder).towers["vision"].variants)


def _pixels(model: Model, batch: int) -> NDArray[np.float32]:
    side = model.manifest.preprocess.crop_size
    return np.random.default_rng(0).standard_normal((batch, 3, side, side)).astype(np.float32)


if __name__ == "__main__":
    raise SystemExit(main())
