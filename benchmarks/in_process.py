"""The ceiling without HTTP: the server's own decode pool, batcher and engine, fed by as many callers as a load has.

    python -m benchmarks.in_process IMAGES_DIR [clipsrv flags]

Prints "ready" once it has loaded. Then, for each line [name of a load, seconds of warm-up, seconds] it reads, "edge"
as the window begins and as it ends, and what was seen in it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.loads import LOADS, Contents, Load
from benchmarks.window import Outcome, Window
from clipsrv.cli import read_config
from clipsrv.server.app import open_library
from clipsrv.serving.embedder import Embedder
from clipsrv.settings import serving_settings


async def drive(embedder: Embedder, load: Load, contents: list[Contents], warm_up: float, seconds: float) -> Outcome:
    """What `load.callers` callers see with these contents in turn."""
    cycle, over = itertools.cycle(contents), asyncio.Event()
    window = Window(load.callers, warm_up, seconds, at_edge=lambda: _say("edge"))

    async def call() -> None:
        while not over.is_set():
            begin = time.monotonic()
            await embedder.embed_items(next(cycle))
            if not over.is_set() and window.add(time.monotonic() - begin):
                over.set()

    async with asyncio.TaskGroup() as callers:
        for _ in range(load.callers):
            callers.create_task(call())
    return window.outcome


async def main() -> None:
    folder, *flags = sys.argv[1:]
    config, loads = read_config(flags), {load.name: load for load in LOADS}
    embedder = Embedder(open_library(config), serving_settings(config))
    await embedder.start()
    _say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, warm_up, seconds = json.loads(line)
        load = loads[name]
        contents = load.requests(Path(folder))
        _say(json.dumps(asdict(await drive(embedder, load, contents, warm_up, seconds))))
    await embedder.close()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
