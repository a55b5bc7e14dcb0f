"""What several processes of a server cost beside one, on the same cores: answers a second, waits, memory.

    python -m benchmarks.workers [--models-dir DIR] [--model demo] [--precision auto] [--workers 2]

One server with --workers 1 and one with as many as are asked for take turns under each load; who does not answer is
stopped. Each has all cores: the one has threads for all of them, the other divides them. Figures are medians of the
rounds. Memory, after all loads: PSS, in which what processes share counts once; and of it what each has alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

from benchmarks.loads import EIGHT, MIXED, ONE, TEXT_EIGHT
from benchmarks.processes import memory
from benchmarks.rivals import clipsrv_rival
from benchmarks.servers import Server

_ROOT = Path(__file__).parents[1]
_LOADS = (ONE, EIGHT, TEXT_EIGHT, MIXED)
_WARM_UP = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, default=_ROOT / "onnx_models")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work, cores = _ROOT / "build" / "bench", sorted(os.sched_getaffinity(0))
    work.mkdir(parents=True, exist_ok=True)
    flags = ["--device", "cpu", "--cache-bytes", "0", "--precision", arguments.precision]
    servers = []
    try:
        for count in (1, arguments.workers):
            own = [*flags, "--workers", str(count)]
            models = arguments.models_dir.resolve()
            rival = clipsrv_rival(f"{count} workers", sys.executable, models, arguments.model, own, [])
            servers.append(Server(rival, cores, work / f"{count}-workers.log"))
            servers[-1].freeze()
        print(f"{arguments.model} on {len(cores)} cores, with {os.getloadavg()[0]:.1f} processes running beside\n")
        print("| load | workers | a second | ratio | p50 ms |\n|---|---:|---:|---:|---:|")
        for load in _LOADS:
            contents = load.requests(work / "images")
            rates: list[list[float]] = [[], []]
            waits: list[list[float]] = [[], []]
            for _ in range(arguments.rounds):
                for place, server in enumerate(servers):
                    server.thaw()
                    outcome = server.drive(load, contents, _WARM_UP, arguments.seconds, lambda: None)
                    server.freeze()
                    if outcome.errors:
                        raise SystemExit(f"{load.name}, {server.rival.name}: {outcome.first_error}")
                    rates[place].append(len(outcome.latencies) * load.items / outcome.seconds)
                    waits[place].append(1000 * statistics.median(outcome.latencies))
            ratio = statistics.median(several / one for one, several in zip(*rates, strict=True))
            for place, count in enumerate((1, arguments.workers)):
                told = f"{ratio:.2f}" if place else ""
                rate, wait = statistics.median(rates[place]), statistics.median(waits[place])
                print(f"| {load.name} | {count} | {rate:.1f} | {told} | {wait:.0f} |", flush=True)
        for count, server in zip((1, arguments.workers), servers, strict=True):
            proportional, private = memory(server.pid)
            print(f"\n{count} workers: PSS {proportional:.0f} MiB, of it private {private:.0f} MiB", flush=True)
    finally:
        for server in servers:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
