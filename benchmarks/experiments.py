"""Choices behind the engine's settings, measured one by one: options of the session, threads, batch sizes.

    python -m benchmarks.experiments MODELS_DIR MODEL [--precision int8] [--seconds 4]

Every choice runs in a process of its own, so that memory is its own, and all of them twice, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from clipsrv.manifest import VISION, load_manifest
from clipsrv.runtime.session import SPINNING

#: What the server does, and then what it could do instead: one change each.
_OURS: dict[str, Any] = {
    **{"threads": 2, "batch": 8, "runs": 1, "arena": False, "pattern": True, "entries": SPINNING},
    "environment": {},
}
_CHOICES: dict[str, dict[str, Any]] = {
    "as served: 2 threads, batches of 8": {},
    "threads fall asleep between operators": {"entries": {"session.intra_op.allow_spinning": "0"}},
    "threads spin while idle (onnxruntime's default)": {"entries": {}},
    "threads wait for 200 µs": {"entries": SPINNING | {"session.intra_op.spin_duration_us": "200"}},
    # Of glibc 2.35 and later; 1 asks the system for huge pages, whatever it does by itself.
    "huge pages for malloc": {"environment": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}},
    "weights as they are, not packed": {"entries": SPINNING | {"session.disable_prepacking": "1"}},
    "operators cut into smaller blocks": {"entries": SPINNING | {"session.dynamic_block_base": "4"}},
    "with the CPU arena": {"arena": True},
    "without the memory pattern": {"pattern": False},
    "batches of 1": {"batch": 1},
    "batches of 4": {"batch": 4},
    "batches of 16": {"batch": 16},
    "batches of 32": {"batch": 32},
    "1 thread": {"threads": 1},
    "1 thread, batches of 1": {"threads": 1, "batch": 1},
    "two batches at once, 1 thread each": {"threads": 1, "runs": 2},
    "two batches of 4 at once, 1 thread each": {"threads": 1, "runs": 2, "batch": 4},
    "two batches at once, sharing 2 threads": {"runs": 2},
}


def _measure(graph: str, output: str, size: int, choice: dict[str, Any], seconds: float) -> dict[str, float]:
    """Images a second and CPU milliseconds an image, both of the window; MiB of the highest resident size."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = choice["threads"]
    options.enable_cpu_mem_arena = choice["arena"]
    options.enable_mem_pattern = choice["pattern"]
    for entry, value in choice["entries"].items():
        options.add_session_config_entry(entry, value)
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pixels = np.random.default_rng(0).normal(size=(choice["batch"], 3, size, size)).astype(np.float32)
    session.run([output], {name: pixels})
    end = time.monotonic() + seconds

    def work() -> int:
        count = 0
        while time.monotonic() < end:
            session.run([output], {name: pixels})
            count += len(pixels)
        return count

    begin, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(choice["runs"]) as pool:
        images = sum(future.result() for future in [pool.submit(work) for _ in range(choice["runs"])])
    took, cpu = time.monotonic() - begin, time.process_time() - cpu
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"rate": images / took, "cpu": 1000 * cpu / images, "peak": int(status["VmHWM"].split()[0]) / 1024}


def compare(arguments: list[str]) -> str:
    """A Markdown table of every choice and its ratio to what the server does, each run with these `arguments`."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _CHOICES}
    for _ in range(2):
        for name in _CHOICES:
            command = [sys.executable, "-m", "benchmarks.experiments", *arguments, "--only", name]
            own = {**os.environ, **(_OURS | _CHOICES[name])["environment"]}
            found[name].append(json.loads(subprocess.run(command, capture_output=True, check=True, env=own).stdout))
    medians = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()
    }
    base = next(iter(medians.values()))["rate"]
    rows = ["| engine alone | images/s | ratio | CPU ms/image | peak RSS MiB |", "| --- | ---: | ---: | ---: | ---: |"]
    rows += [
        f"| {name} | {one['rate']:.2f} | {one['rate'] / base:.2f} | {one['cpu']:.1f} | {one['peak']:.0f} |"
        for name, one in medians.items()
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("model")
    parser.add_argument("--precision", default="fp32", help="variant of the vision tower (default fp32)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default 4)")
    parser.add_argument("--only", choices=_CHOICES, help="measure this alone, in this process, and print JSON")
    args = parser.parse_args()
    if args.only is None:
        print(f"{os.cpu_count()} cores seen, {len(os.sched_getaffinity(0))} usable; {args.precision}\n")
        print(compare(sys.argv[1:]))
        return
    manifest = load_manifest(args.models_dir / args.model)
    tower = manifest.towers[VISION]
    graph = args.models_dir / args.model / tower.variants[args.precision]
    size = manifest.preprocess.crop_size
    print(json.dumps(_measure(str(graph), tower.output, size, _OURS | _CHOICES[args.only], args.seconds)))


if __name__ == "__main__":
    main()
