"""The sections in the order in which they run, and one of them as a process:

    python -m benchmarks.gpu.sections MODULE:FUNCTION SETTING_AS_JSON ROWS_FILE

Each row is written as it is known, a line of JSON: a section that is cut short keeps what it has.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.setting import Row, Setting


@dataclass(frozen=True)
class Section:
    """`measure` is module and function. It is not begun with less than `least` seconds left, and is cut short after
    `most`. `runtime` is the onnxruntime that it computes with; with `on_gpu` only a card can run it."""

    name: str
    title: str
    measure: str
    least: float
    most: float
    runtime: str = "gpu"
    on_gpu: bool = False


#: What a user would ask first comes first: time may not suffice for all.
SECTIONS = (
    Section("machine", "Machine", "benchmarks.gpu.machine:measure", 5, 60),
    Section("prepare", "Models made", "benchmarks.gpu.prepare:measure", 30, 3600, "cpu"),
    Section("providers", "Where every node runs", "benchmarks.gpu.engine:providers", 10, 60),
    Section("parity", "Vectors beside PyTorch's on the same device", "benchmarks.gpu.engine:parity", 15, 90),
    Section("engine", "Engine alone, images/s by batch", "benchmarks.gpu.engine:engine", 20, 90),
    Section("texts", "Texts alone, a second by batch", "benchmarks.gpu.texts:texts", 10, 30),
    Section("served", "Server end to end, 1024x768 JPEG", "benchmarks.gpu.served:served", 25, 90),
    Section("auto", "What auto takes", "benchmarks.gpu.choosing:auto", 10, 60),
    Section("memory", "Out of memory", "benchmarks.gpu.engine:memory", 10, 30, on_gpu=True),
    Section("compiled", "PyTorch compiled", "benchmarks.gpu.engine:compiled", 20, 50, on_gpu=True),
    Section("engine-large", "Engine alone, the other models", "benchmarks.gpu.engine:engine_large", 20, 70),
    Section("decoding", "Decoding beside the engine", "benchmarks.gpu.served:decoding", 8, 30),
    Section("workers", "One server process and several", "benchmarks.gpu.served:workers", 15, 90),
    Section("prepare-cpu", "Model made for the CPU", "benchmarks.gpu.prepare:for_cpu", 30, 3600, "cpu"),
    Section("cores", "The CPU by cores", "benchmarks.gpu.cores:cores", 15, 200, "cpu"),
)


def main(measure: str, setting: str, file: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut short"))  # ends the servers that it has started
    module, _, function = measure.partition(":")
    rows_of: Callable[[Setting], Iterator[Row]] = getattr(importlib.import_module(module), function)
    with Path(file).open("a", encoding="utf-8") as rows:
        for row in rows_of(Setting.from_json(setting)):
            rows.write(json.dumps(row) + "\n")
            rows.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
