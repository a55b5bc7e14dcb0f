"""Texts a second of two model folders in turn, without a server: what a change of the text tower's graph is worth.

    python -m benchmarks.text_towers OTHER_FOLDER FOLDER [--precision fp32] [--device cpu] [--seconds 6]

Each row is so many pairs, one folder after the other on the same texts; a ratio is the median of the pairs' ratios.
Searches (benchmarks/phrases.py) alone, as many as fill a batch of 8, of 36 and a list; and labels in a sentence.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.phrases import make_texts
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.models.texts import embed_texts
from clipsrv.settings import ModelSettings

_IMAGES = 8
_LABELS = ("cat", "dog", "boat", "tree", "bicycle", "house", "horse", "chair")
_KINDS = ("red", "blue", "small", "old", "new", "wooden", "broken", "shiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    settings = ModelSettings(device=args.device, precision=args.precision)
    models = [load_model(folder, settings) for folder in args.folders]
    searches = make_texts(1024)
    labels = [f"a photo of a {kind} {label}" for kind in _KINDS for label in _LABELS]
    print(f"{args.device}, {args.precision}\n\n| texts | a second | | ratio | pairs |\n|---|---:|---:|---:|---:|")
    for size in (1, 8, 36, 256):
        batches = [searches[at : at + size] for at in range(0, len(searches), size)]
        print(f"| {size} searches | {_compare(models, batches, args.seconds)} |", flush=True)
    print(f"| {len(labels)} labels | {_compare(models, [labels], args.seconds)} |")


def _compare(models: list[Model], batches: list[list[str]], seconds: float) -> str:
    times: list[list[float]] = [[], []]
    for model in models:
        embed_texts(model, batches[0], _IMAGES)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not times[0]:
        pairs = len(times[0])
        for place in (0, 1) if pairs % 2 else (1, 0):
            begin = time.perf_counter()
            embed_texts(models[place], batches[pairs % len(batches)], _IMAGES)
            times[place].append(time.perf_counter() - begin)
    ratio = statistics.median(one / other for one, other in zip(*times, strict=True))
    rates = [len(batches[0]) / statistics.median(taken) for taken in times]
    return f"{rates[0]:.1f} | {rates[1]:.1f} | {ratio:.2f} | {len(times[0])}"


if __name__ == "__main__":
    main()
