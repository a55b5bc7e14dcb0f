"""What a vector costs that is known, beside one that is computed: alone, by many callers, beside a busy engine.

    python -m benchmarks.known [--models-dir DIR] [--model demo] [--seconds 5]

Two servers of one model take turns, one that keeps vectors and one that does not (--cache-bytes 0); each is asked for
the same text, and for the same image, over one connection and over eight. Then again while eight others send it images
that nobody has sent before. Latencies are from the first byte sent to the last received, in a process that shares the
cores; CPU is the server's own for an answer, where it answers nothing else. Exit status 1 if a text that is known costs
1 ms of CPU or more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from pathlib import Path

from benchmarks.asking import ask_guide
from benchmarks.generator import Generator
from benchmarks.loads import SHOP, WEB
from benchmarks.photos import make_images
from benchmarks.processes import cpu_seconds
from benchmarks.rivals import clipsrv_rival
from benchmarks.servers import Rival, Server
from clipsrv.config import Config

_ROOT = Path(__file__).parents[1]
_TEXT = "a red heart on a white shirt"
_WARM_UP = 1.0
#: Images that differ in the bytes behind their end only: more than are sent in the time.
_NEW, _CALLERS = 2000, 8


def flood(address: tuple[str, int], image: bytes, seconds: float) -> None:
    """Sends images that nobody has sent before from `_CALLERS` callers."""
    images = [image + number.to_bytes(4, "big") for number in range(_NEW)]
    requests = [ask_guide([one], WEB.format, "localhost") for one in images]
    Generator(address, requests, _CALLERS).run(0, seconds)


class Table:
    """Rows as they come."""

    def __init__(self) -> None:
        print("| asked for | vectors | a second | CPU ms | p50 ms | p99 ms |\n|---|---|---:|---:|---:|---:|")

    def measure(
        self, ask: str, request: bytes, callers: int, server: Server, seconds: float, *, alone: bool = True
    ) -> float:
        """A row; milliseconds of the server's CPU for each answer, which mean something if it is `alone`."""
        edges: list[float] = []
        generator = Generator(server.address, [request], callers)
        outcome = generator.run(_WARM_UP, seconds, lambda: edges.append(cpu_seconds(server.pid)))
        if outcome.errors:
            raise SystemExit(f"{ask}, {server.rival.name}: {outcome.errors} errors, the first: {outcome.first_error}")
        latencies = sorted(1000 * latency for latency in outcome.latencies)
        cost, rate = 1000 * (edges[1] - edges[0]) / len(latencies), len(latencies) / outcome.seconds
        middle, late = statistics.median(latencies), latencies[int(0.99 * (len(latencies) - 1))]
        told = f"{cost:.2f}" if alone else ""
        print(f"| {ask} | {server.rival.name} | {rate:,.0f} | {told} | {middle:.2f} | {late:.2f} |", flush=True)
        return cost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, default=_ROOT / "onnx_models")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    work, cores = _ROOT / "build" / "bench", sorted(os.sched_getaffinity(0))
    work.mkdir(parents=True, exist_ok=True)
    (image,), (new,) = (make_images(kind, 1, work / "images") for kind in (SHOP, WEB))
    asks = {
        "a text": ask_guide([_TEXT], SHOP.format, "localhost"),
        f"an image of {len(image) >> 10} KiB": ask_guide([image], SHOP.format, "localhost"),
    }
    rivals = (_rival("kept", arguments, []), _rival("computed", arguments, ["--cache-bytes", "0"]))
    servers = [Server(rival, cores, work / f"{rival.name}.log") for rival in rivals]
    print(f"{arguments.model} on {len(cores)} cores, with {os.getloadavg()[0]:.1f} processes running beside\n")
    table, costs = Table(), list[float]()
    try:
        for ask, request in asks.items():
            for callers in (1, _CALLERS):
                for server in servers:
                    costs.append(
                        table.measure(f"{ask}, {callers} at once", request, callers, server, arguments.seconds)
                    )
        for ask, request in asks.items():
            for server in servers:
                others = multiprocessing.Process(
                    target=flood, args=(server.address, new, arguments.seconds + 3 * _WARM_UP)
                )
                others.start()
                table.measure(
                    f"{ask}, beside {_CALLERS} that send new images", request, 1, server, arguments.seconds, alone=False
                )
                others.join()
    finally:
        for server in servers:
            server.stop()
    return 0 if costs[0] < 1 else 1


def _rival(name: str, arguments: argparse.Namespace, flags: list[str]) -> Rival:
    shared = ["--device", "cpu", "--cache-bytes", str(Config().cache_bytes)]
    models = arguments.models_dir.resolve()
    return clipsrv_rival(name, sys.executable, models, arguments.model, [*shared, *flags], [])


if __name__ == "__main__":
    sys.exit(main())
