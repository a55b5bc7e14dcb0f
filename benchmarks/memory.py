"""What memory a server holds under load: ViT-B/32 in int8 has a goal of 300 MiB, in fp32 of 650.

    python -m benchmarks.memory [--models-dir DIR] [--model demo] [--precision int8 --precision fp32]

Each server is started by itself and asked by 16 callers for an image and a text in turn, then for images, for texts,
and for both again. RSS and its peak (VmHWM, forgotten after the start) are added up over its processes; PSS counts what
several of them map once.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.loads import EIGHT, MIXED, TEXT_EIGHT
from benchmarks.processes import forget_peak, memory, peak_rss, rss
from benchmarks.rivals import clipsrv_rival
from benchmarks.servers import Server

_ROOT = Path(__file__).parents[1]
_BOTH, _IMAGES, _TEXTS = (replace(load, callers=16) for load in (MIXED, EIGHT, TEXT_EIGHT))
_LOADS = {"both": _BOTH, "images": _IMAGES, "texts": _TEXTS, "both again": _BOTH}
_MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, default=_ROOT / "onnx_models", help="folder of converted models")
    parser.add_argument("--model", default="demo", help="model to serve")
    parser.add_argument("--precision", action="append", default=[], help="default fp32; may be repeated")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load (default 6)")
    arguments = parser.parse_args()
    work, cores = _ROOT / "build" / "bench", sorted(os.sched_getaffinity(0))
    work.mkdir(parents=True, exist_ok=True)
    print(f"{arguments.model} on {len(cores)} cores, MiB\n")
    print("| precision | load | a second | RSS | peak RSS so far | PSS |\n|---|---|---:|---:|---:|---:|")
    for precision in arguments.precision or ["fp32"]:
        flags = ("--device", "cpu", "--cache-bytes", "0", "--precision", precision)
        models = arguments.models_dir.resolve()
        rival = clipsrv_rival(precision, sys.executable, models, arguments.model, flags, [])
        server = Server(rival, cores, work / "memory.log")
        try:
            forget_peak(server.pid)
            _tell(precision, "started", "", server.pid)
            for name, load in _LOADS.items():
                outcome = server.drive(load, load.requests(work / "images"), 1.0, arguments.seconds, lambda: None)
                if outcome.errors:
                    raise SystemExit(f"{name}: {outcome.first_error}")
                _tell(precision, name, f"{len(outcome.latencies) / outcome.seconds:.1f}", server.pid)
        finally:
            server.stop()
    return 0


def _tell(precision: str, load: str, rate: str, pid: int) -> None:
    (proportional, _), peak = memory(pid), peak_rss(pid) / _MIB
    resident = rss(pid) / _MIB
    print(f"| {precision} | {load} | {rate} | {resident:.0f} | {peak:.0f} | {proportional:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
