"""One run: every server started, then every load on each of them in turn, again and again."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loads import EIGHT, Load
from benchmarks.photos import make_images
from benchmarks.processes import cpu_seconds, forget_peak, peak_rss
from benchmarks.results import BASELINE, Results, Sample, quantile
from benchmarks.servers import InProcess, Rival, Server
from benchmarks.startup import import_seconds, seconds_to_healthy

#: Of a measurement's seconds, what goes before the window; and what starting, stopping and the ceilings cost in all.
_WARM_UP_SHARE, _LEAST_WARM_UP = 0.2, 1.0
_OVERHEAD = 150.0


@dataclass(frozen=True)
class Plan:
    """`ceilings` are command lines by server name, as benchmarks.ceilings takes them before its SECONDS."""

    rivals: Sequence[Rival]
    loads: Sequence[Load]
    ceilings: dict[str, list[str]]
    cores: Sequence[int]
    repetitions: int
    minutes: float
    work: Path

    @property
    def seconds(self) -> float:
        """Of one measurement, its warm-up included, so that all fit into `minutes`."""
        measurements = self.repetitions * sum(len(rival.loads) for rival in self.rivals)
        return max(2.0, (60 * self.minutes - _OVERHEAD) / max(1, measurements))


def measure(plan: Plan, facts: dict[str, str]) -> Results:
    """Runs the plan. A rival that does not start is said so and left out; the baseline and our own must start."""
    results = Results(facts=facts)
    images = plan.work / "images"
    blobs = {load: make_images(load.photo, load.distinct, images) for load in plan.loads}
    facts["images"] = ", ".join(
        f"{load.photo.name} (mean {sum(map(len, found)) / len(found) / 1024:.0f} KiB)"
        for load, found in {load.photo: (load, found) for load, found in blobs.items()}.values()
    )
    for rival in plan.rivals:
        if rival.name.startswith("clipsrv") and not rival.in_process:
            results.startup[rival.name] = seconds_to_healthy(rival, plan.cores, _log(plan, rival), 3)
    results.startup["imports for --help"] = import_seconds(plan.rivals[0].command[0], 5)
    for name, arguments in plan.ceilings.items():
        _say(f"ceilings of {name}")
        results.ceilings[name] = _ceilings(plan, arguments)
    servers = _start(plan, results)
    try:
        results.agreement.update(_agreement(servers, blobs[plan.loads[0]][0], results))
        if results.agreement:
            facts["cosine of one image's vector to the baseline's"] = ", ".join(
                f"{name} {cosine:.5f}" for name, cosine in results.agreement.items()
            )
        rounds = itertools.product(range(plan.repetitions), plan.loads, servers)
        for repetition, load, server in rounds:
            if load.name in server.rival.loads:
                results.samples.append(sample := _measure(plan, server, load, blobs[load], repetition))
                _say(f"{repetition + 1}: {load.name}: {server.rival.name}: {sample.images_per_second:.2f} images/s")
    finally:
        for server in servers:
            server.stop()
    return results


def _start(plan: Plan, results: Results) -> list[Server | InProcess]:
    servers: list[Server | InProcess] = []
    for rival in plan.rivals:
        _say(f"starting {rival.name}")
        try:
            server = (InProcess if rival.in_process else Server)(rival, plan.cores, _log(plan, rival))
        except (RuntimeError, OSError) as error:
            if rival.name in (BASELINE, plan.rivals[0].name):
                for started in servers:
                    started.stop()
                raise
            results.facts[f"{rival.name} did not start"] = str(error)[-300:]
            _say(str(error))
            continue
        if not rival.in_process:
            results.startup.setdefault(rival.name, server.seconds_to_healthy)
        server.freeze()
        servers.append(server)
    return servers


def _measure(plan: Plan, server: Server | InProcess, load: Load, blobs: list[bytes], repetition: int) -> Sample:
    cpu: list[float] = []
    warm_up = max(_LEAST_WARM_UP, _WARM_UP_SHARE * plan.seconds)
    server.thaw()
    forget_peak(server.pid)
    try:
        outcome = server.drive(
            load, blobs, warm_up, max(1.0, plan.seconds - warm_up), at_edge=lambda: cpu.append(cpu_seconds(server.pid))
        )
    finally:
        server.freeze()
    if outcome.errors:
        _say(f"{outcome.errors} errors, the first: {outcome.first_error}")
    images = load.images * len(outcome.latencies)
    return Sample(
        server.rival.name,
        load.name,
        repetition,
        images_per_second=images / outcome.seconds,
        p50=quantile(outcome.latencies, 0.5),
        p99=quantile(outcome.latencies, 0.99),
        cpu_per_image=(cpu[1] - cpu[0]) / images if images else math.nan,
        peak_rss=peak_rss(server.pid),
        errors=outcome.errors,
        generator_cores=outcome.generator_cpu / outcome.seconds,
    )


def _ceilings(plan: Plan, arguments: list[str]) -> dict[str, float]:
    python, *rest = arguments
    models, model, *flags = rest
    found = subprocess.run(
        [
            *("taskset", "-c", ",".join(map(str, plan.cores)), python, "-m", "benchmarks.ceilings", models, model),
            *(str(plan.work / "images"), str(plan.seconds), *flags),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(found.stdout)
    return answer


def _agreement(servers: list[Server | InProcess], blob: bytes, results: Results) -> dict[str, float]:
    """Cosine of every server's vector of one image to the baseline's: they must have computed the same thing.

    A rival that gives no vector is said so and taken out of `servers`.
    """
    vectors = {}
    for server in list(servers):
        if isinstance(server, InProcess):
            continue
        server.thaw()
        try:
            vectors[server.rival.name] = _vector(server, blob)
        except (KeyError, ValueError, OSError) as error:
            results.facts[f"{server.rival.name} gave no vector"] = str(error)[:300]
            _say(f"{server.rival.name} gave no vector and is left out: {error}")
            servers.remove(server)
            server.stop()
            continue
        server.freeze()
    reference = vectors.get(BASELINE)
    if reference is None:
        return {}
    return {name: _cosine(vector, reference) for name, vector in vectors.items()}


def _vector(server: Server, blob: bytes) -> list[float]:
    (request, *_) = server.rival.requests(EIGHT, [blob], "127.0.0.1")
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    connection = http.client.HTTPConnection(*server.address, timeout=120)
    connection.request("POST", first.split()[1], body, dict(line.split(": ", 1) for line in lines))
    response = connection.getresponse()
    text = response.read().decode("utf-8", "replace")
    connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status}: {text}")
    answer = json.loads(text)
    vector: list[float] = answer["embedding"] if "embedding" in answer else answer["data"][0]["embedding"]
    return vector


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def _log(plan: Plan, rival: Rival) -> Path:
    return plan.work / f"{rival.name.replace(' ', '-').replace('+', 'and')}.log"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
