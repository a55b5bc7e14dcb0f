"""Where a request's time goes under a load: its latency by stage, and the server's CPU time by what the code is doing.

Latency is the server's own Server-Timing. CPU time is the kernel's, thread by thread, and divided among stages by
py-spy's samples of that thread; threads without Python in them are onnxruntime's.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from benchmarks.generator import Generator
from benchmarks.loads import Load
from benchmarks.processes import threads_cpu_seconds
from benchmarks.servers import Rival, Server

_SECONDS = 20
_ENGINE = "inference: engine"
#: What a sample counts as: the first whose words are all in its stack.
_STAGES = (
    (_ENGINE, ("runtime/encoder.py",)),
    ("inference: stack, normalise", ("serving/engine.py", "thread.py")),
    ("decode: resize and crop", ("resize_and_crop",)),
    ("decode: normalise", ("preprocess_image",)),
    ("decode: to RGB, orientation", ("to_rgb",)),
    ("decode: to RGB, orientation", ("upright",)),
    ("decode: decompress", ("load (PIL/",)),
    ("decode: header, limits", ("open_image",)),
    ("HTTP: multipart", ("read_form",)),
    ("HTTP: JSON out", ("vectors_response",)),
    ("HTTP: other", ("aiohttp",)),
    ("event loop", ("asyncio",)),
)
#: Functions that sleep: py-spy takes some of them for running.
_ASLEEP = re.compile(
    r"(_worker \(concurrent/futures/thread\.py:81\)|wait \(threading\.py:\d+\)|select \(selectors\.py:\d+\))$"
)
_THREAD = re.compile(r"thread \((\d+)\)")
_TIMING = re.compile(r"(\w+);dur=([\d.]+)")


def profile(rival: Rival, cores: Sequence[int], load: Load, work: Path, native: bool) -> str:
    """Both tables. Raises SystemExit without py-spy."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if spy is None:
        raise SystemExit("The profile needs py-spy: pip install py-spy")
    requests, stacks = rival.requests(load, load.requests(work / "images")), work / "stacks.txt"
    server = Server(rival, cores, work / "profiled.log")
    timings: defaultdict[str, list[float]] = defaultdict(list)
    costs: list[Mapping[int, float]] = []

    def note(answer: bytes) -> None:
        head = answer[: answer.find(b"\r\n\r\n")].decode("latin-1")
        line = next((line for line in head.splitlines() if line.lower().startswith("server-timing")), "")
        for stage, took in _TIMING.findall(line):
            timings[stage].append(float(took))

    try:
        Generator(server.address, requests, load.callers).run(0, 2)
        options = ["--format", "raw", "--threads", "--rate", "200", *(["--native"] if native else [])]
        options += ["--duration", str(_SECONDS), "--output", str(stacks), "--pid", str(server.pid)]
        watcher = subprocess.Popen([spy, "record", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        generator = Generator(server.address, requests, load.callers, watch=note)
        outcome = generator.run(1, _SECONDS - 3, lambda: costs.append(threads_cpu_seconds(server.pid)))
        watcher.wait()
    finally:
        server.stop()
    images = load.images * len(outcome.latencies)
    spent = {thread: cost - costs[0].get(thread, 0.0) for thread, cost in costs[1].items()}
    return "\n".join(
        [
            f"{rival.name}, {load.name}: {images / outcome.seconds:.1f} images/s while sampled; stacks are in {stacks}",
            *("", "Latency of a request, ms (median; stages of different images overlap)"),
            *(f"{statistics.median(found):8.1f}  {stage}" for stage, found in timings.items()),
            f"{1000 * statistics.median(outcome.latencies):8.1f}  in all, as the caller sees it",
            *("", "CPU time of the server, ms an image"),
            *(
                f"{1000 * cost / images:8.2f}  {100 * cost / sum(spent.values()):5.1f} %  {stage}"
                for stage, cost in _by_stage(spent, stacks.read_text())
            ),
        ]
    )


def _by_stage(spent: Mapping[int, float], stacks: str) -> list[tuple[str, float]]:
    """CPU seconds by stage, the largest first: those of each thread, divided as its samples are."""
    samples: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        thread = _THREAD.match(stack)
        if thread and not _ASLEEP.search(stack):
            samples[int(thread[1])][_stage(stack)] += int(count)
    found: defaultdict[str, float] = defaultdict(float)
    for ident, cost in spent.items():
        shares = samples.get(ident) or Counter({_ENGINE: 1})
        for stage, part in shares.items():
            found[stage] += cost * part / shares.total()
    return sorted(found.items(), key=itemgetter(1), reverse=True)


def _stage(stack: str) -> str:
    return next((name for name, words in _STAGES if all(word in stack for word in words)), "other")
