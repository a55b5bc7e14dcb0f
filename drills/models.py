"""Several models in one server: memory as they are loaded and unloaded, and what one that is idle costs another.

python -m drills.models ROUNDS [--mib 100] [--models-dir DIR NAME NAME]. Each round asks two models in turn of a server
that has room for one; then the first is asked with and without the second beside it. Without a folder, two models
with so many MiB of weights are made. Exit status 1 if memory goes on growing by more than a tenth of what a model took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.support.heavy import write_heavy_model
from tests.support.photos import drawn
from tests.support.server import ServerProcess
from tests.support.wire import request

_MIB = 2**20
#: Rounds until allocators ask for no more, as a part of all; requests of the comparison.
_WARM_UP, _REQUESTS = 0.3, 300


@contextmanager
def serving(folder: Path, *flags: object) -> Iterator[ServerProcess]:
    common = ("--models-dir", folder, "--device", "cpu", "--port", 0, "--log-level", "info", "--cache-bytes", 0)
    server = ServerProcess(*common, *flags)
    try:
        yield server.ready()
    finally:
        server.close()


def ask(server: ServerProcess, name: str) -> float:
    """Seconds until the vector of one image by this model."""
    began = time.monotonic()
    reply = server.ask(request("POST", f"/embed?model={name}", drawn(1), "Content-Type: image/png"), 120)
    assert reply.status == 200, reply.body
    return time.monotonic() - began


def in_turn(folder: Path, names: list[str], rounds: int) -> list[list[float]]:
    """MiB that are resident after each model of each round."""
    with serving(folder, "--model", names[0], "--on-demand", "--max-loaded", 1) as server:
        process, seen = psutil.Process(server.process.pid), list[list[float]]()
        for _ in range(rounds):
            memory = []
            for name in names:
                ask(server, name)
                memory.append(process.memory_info().rss / _MIB)
            seen.append(memory)
        return seen


def beside(folder: Path, names: list[str]) -> float:
    """Seconds of a request of the first model with the second loaded and idle, by those without it: medians, taken
    in turn."""
    with (
        serving(folder, "--model", names[0]) as alone,
        serving(folder, "--model", names[0], "--models", names[1]) as with_another,
    ):
        turns = [(ask(alone, names[0]), ask(with_another, names[0])) for _ in range(_REQUESTS)]
        without, with_it = (statistics.median(column) for column in zip(*turns, strict=True))
        return with_it / without


def run(folder: Path, names: list[str], rounds: int) -> int:
    seen = in_turn(folder, names, rounds)
    for number, memory in enumerate(seen):
        if number % max(1, rounds // 10) == 0:
            print(
                f"round {number:4}  "
                + "  ".join(f"{name} {mib:7.1f} MiB" for name, mib in zip(names, memory, strict=True))
            )
    settled = [max(column) for column in zip(*seen[int(_WARM_UP * rounds) : int(0.6 * rounds) + 1], strict=True)]
    ends = [max(column) for column in zip(*seen[int(0.6 * rounds) :], strict=True)]
    growth = max(end - before for end, before in zip(ends, settled, strict=True))
    facts = {
        "rounds": rounds,
        "first MiB": [round(mib, 1) for mib in seen[0]],
        "last MiB": [round(mib, 1) for mib in seen[-1]],
        "growth MiB": round(growth, 1),
        "first model's time with the second idle, by without": round(beside(folder, names), 3),
    }
    print(json.dumps(facts))
    return 1 if growth > 0.1 * max(seen[0]) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--mib", type=int, default=100)
    options = parser.parse_args()
    if options.models_dir:
        return run(options.models_dir, options.names, options.rounds)
    with TemporaryDirectory() as folder:
        for seed, name in enumerate(("first", "second")):
            write_heavy_model(Path(folder) / name, options.mib, seed=seed, data=True)
        return run(Path(folder), ["first", "second"], options.rounds)


if __name__ == "__main__":
    sys.exit(main())
