"""Where the time of the server's threads goes under a load, sampled by py-spy and summed by what the code is doing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generator import Generator
from benchmarks.loads import Load, guide_requests
from benchmarks.photos import make_pictures
from benchmarks.servers import Rival, Server

_SECONDS = 20
#: What a sample counts as: the first whose words are all in its stack.
_STAGES = (
    ("inference: engine", ("encode (clipsrv/encoder.py",)),
    ("inference: stack, normalise", ("in_engine",)),
    ("inference: stack, normalise", ("encode (clipsrv/embedder.py",)),
    ("decode: resize and crop", ("resize_and_crop",)),
    ("decode: normalise", ("preprocess_image",)),
    ("decode: to RGB, orientation", ("to_rgb",)),
    ("decode: to RGB, orientation", ("_oriented",)),
    ("decode: decompress", ("load (PIL/",)),
    ("decode: header, limits", ("decode_image",)),
    ("HTTP: multipart", ("_read_form",)),
    ("HTTP: JSON out", ("embeddings_response",)),
    ("HTTP: other", ("aiohttp",)),
    ("event loop", ("asyncio",)),
)


def profile(rival: Rival, cores: Sequence[int], load: Load, work: Path, native: bool) -> str:
    """A table: share of the samples of threads that were running, by stage. Raises SystemExit without py-spy."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if spy is None:
        raise SystemExit("The profile needs py-spy: pip install py-spy")
    blobs, stacks = make_pictures(load.picture, load.distinct, work / "pictures"), work / "stacks.txt"
    server = Server(rival, cores, work / "profiled.log")
    try:
        options = ["--format", "raw", "--rate", "200", "--duration", str(_SECONDS), *(["--native"] if native else [])]
        watcher = subprocess.Popen([spy, "record", *options, "--output", str(stacks), "--pid", str(server.pid)])
        outcome = Generator(server.address, guide_requests(load, blobs, "127.0.0.1"), load.callers).run(1, _SECONDS)
        watcher.wait()
    finally:
        server.stop()
    counts: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        counts[_stage(stack)] += int(count)
    total = sum(counts.values())
    lines = [f"{100 * count / total:5.1f} %  {stage}" for stage, count in counts.most_common()]
    rate = len(outcome.latencies) / outcome.seconds
    return f"{rival.name}, {load.name}: {rate:.1f} images/s while sampled; stacks are in {stacks}\n" + "\n".join(lines)


def _stage(stack: str) -> str:
    return next((name for name, words in _STAGES if all(word in stack for word in words)), "other")
