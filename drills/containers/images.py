"""The Dockerfile's three targets, each built and run: what serves, within what limits, and what is refused."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drills.containers.engine import IMAGE, ROOT, Report, ask, build, docker, last, served, started

UNIT = 1e-5
#: Prints which of the packages that have no place in a server are there.
FOUND = """
import importlib.util, json
print(json.dumps([name for name in ("torch", "transformers", "pip") if importlib.util.find_spec(name)]))
"""


def is_vector(answer: tuple[int, Any], dimensions: int) -> bool:
    status, body = answer
    return (
        status == 200
        and len(body["embedding"]) == dimensions
        and abs(math.hypot(*body["embedding"]) - 1) < UNIT
        and body["dimensions"] == dimensions
    )


def cpu(report: Report) -> None:
    image = build("cpu")
    print_sizes(image)
    with served(image) as (container, url):
        container.become_healthy()
        report.expect("healthy by the image's HEALTHCHECK", True)
        report.expect("/embed gives a unit vector", is_vector(ask(f"{url}/embed", IMAGE), 192))
        report.expect("runs as uid 10001", container.run("id", "-u").strip() == "10001")
        report.expect("has no capability", "CapEff:\t0000000000000000" in container.run("cat", "/proc/1/status"))
        wrote = container.run("sh", "-c", "touch /app/x || touch /opt/clipsrv/x || touch /tmp/x", check=False)
        report.expect("writes nowhere", wrote.count("Read-only file system") == 3)
        report.expect("resizes with compiled code", "slower" not in container.logs())
        report.expect("no torch and no pip inside", json.loads(container.run("python", "-c", FOUND)) == [])
        finish_accepted_work(report, container.stop, url)
        report.expect("log ends with 'stopped, 0 requests left unfinished'", "stopped, 0" in container.logs())
    said = docker("run", "--rm", image, "--port", "http", check=False)
    report.expect(
        "a wrong setting is one line", said.startswith("clipsrv: CLIPSRV_PORT (--port) is 'http'"), said.strip()
    )


def finish_accepted_work(report: Report, stop: Callable[[], tuple[int, float]], url: str) -> None:
    """SIGTERM in the middle of requests: each is answered, or was never accepted."""
    answers: list[tuple[int, Any]] = []
    lost: list[OSError] = []
    under_way = threading.Event()

    def call() -> None:
        while True:
            try:
                answers.append(ask(f"{url}/embed", IMAGE))
            except OSError as error:
                lost.append(error)
            under_way.set()
            if lost or answers[-1][0] != 200:
                return

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    under_way.wait(30)
    status, seconds = stop()
    for caller in callers:
        caller.join(60)
    given = sorted({status for status, _ in answers})
    report.expect("SIGTERM: exit status 0", status == 0, f"after {seconds:.1f} s")
    report.expect("answers around SIGTERM are 200 or 503", set(given) <= {200, 503}, f"{given}, {len(answers)} in all")


def limits(report: Report) -> None:
    image = build("cpu")
    with served(image, options=("--memory", "300m", "--memory-swap", "300m", "--cpus", "1")) as (container, url):
        container.become_healthy()
        said = container.run("python", "-m", "clipsrv", "doctor", "--model", "demo")
        report.expect("--cpus 1: one core usable", "1 cores usable" in said)
        report.expect("--memory 300m: the limit is seen", "cgroup limit 0.3 GiB" in said)
        log = container.logs()
        report.expect("one thread computes", "threads 1 (the CPU quota)" in log)
        report.expect("the start warns of what requests may take", "MiB at worst and 300 MiB are allowed" in log)
        codes = {ask(f"{url}/embed", IMAGE)[0] for _ in range(200)}
        report.expect("200 images are embedded", codes == {200}, codes)
        peak = peak_memory(container.run)
        report.expect("within the limit", container.inspect("{{.State.OOMKilled}}") == "false", f"peak {peak:.0f} MB")
    small = (
        *("--max-bytes-in-flight", "16777216", "--max-body-bytes", "16777216", "--max-pixels", "1500000"),
        *("--max-pixels-in-flight", "1500000", "--max-queue", "64", "--max-connections", "64"),
        *("--max-image-bytes", "4194304", "--cache-bytes", "8388608"),
    )
    with served(image, *small, options=("--memory", "300m", "--memory-swap", "300m", "--cpus", "1")) as (container, _):
        container.become_healthy()
        report.expect("settings that fit: no warning of memory", "at worst" not in container.logs())


def peak_memory(run: Callable[..., str]) -> float:
    """MB that the container's cgroup has held at most, of either version."""
    files = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    return int(run("sh", "-c", f"cat {files} 2> /dev/null | head -n 1") or 0) / 1e6


def convert(report: Report) -> None:
    index = os.environ.get("PIP_EXTRA_INDEX_URL", "")
    options = ("--network", "host", "--build-arg", f"PIP_EXTRA_INDEX_URL={index}") if index else ()
    image, server = build("convert", *options), build("cpu")
    print_size(image)
    user = ("--user", str(os.getuid()))
    with tempfile.TemporaryDirectory(prefix="clipsrv-models-") as folder:
        models = Path(folder)
        models.chmod(0o755)
        mounted = ("--volume", f"{models}:/onnx_models", "--volume", f"{ROOT}:/repository:ro")
        make = ("/repository/scripts/make-random-checkpoint", "tiny", "/onnx_models/checkpoint")
        docker("run", "--rm", *user, *mounted, "--entrypoint", "python", image, *make)
        said = docker(
            "run", "--rm", *user, *mounted, image, "--checkpoint", "/onnx_models/checkpoint", "--name", "made"
        )
        report.expect("a checkpoint is converted and compared", (models / "made/manifest.json").exists(), last(said))
        report.expect(
            "its files can be read by others", all(p.stat().st_mode & 0o4 for p in (models / "made").iterdir())
        )
        said = docker("run", "--rm", *user, *mounted, image, "--verify", "/onnx_models/made")
        report.expect("--verify finds it whole", True, last(said))
        command = (image, "--checkpoint", "/onnx_models/checkpoint", "--name", "again")
        said = docker("run", "--rm", "--user", "12345", *mounted, *command, check=False)
        report.expect(
            "a folder it may not write to is one line", "Traceback" not in said and "again" in said, last(said)
        )
        mount = ("--volume", f"{models}:/app/onnx_models:ro")
        with served(server, "--model", "made", options=mount) as (container, url):
            container.become_healthy()
            report.expect("the cpu image serves it", is_vector(ask(f"{url}/embed", IMAGE), 32))


def gpu(report: Report) -> None:
    image = build("gpu")
    print_size(image)
    with started(image) as container:
        status = container.wait()
        report.expect("without a GPU it ends with status 5", status == 5, last(container.logs()))
        report.expect("only the driver is missing", "libcuda.so.1" in container.logs())
    with served(image, "--device", "cpu") as (container, url):
        container.become_healthy()
        report.expect("--device cpu serves", is_vector(ask(f"{url}/embed", IMAGE), 192))


def print_size(image: str) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", image))
    print(f"  {image} takes {size / 1e6:.1f} MB uncompressed, its base included", flush=True)


def print_sizes(image: str) -> None:
    """What the docs' table tells: the parts that lie on the base, and the largest packages."""
    print_size(image)
    folders = "/opt/clipsrv /app/clipsrv /app/onnx_models"
    packages = "/opt/clipsrv/lib/python3.11/site-packages/*"
    said = docker(
        "run", "--rm", "--entrypoint", "sh", image, "-c", f"du -sb {folders}; du -sb {packages} | sort -rn | head -n 9"
    )
    for line in said.splitlines():
        size, name = line.split("\t")
        print(f"    {int(size) / 1e6:7.1f} MB  {name}", flush=True)
