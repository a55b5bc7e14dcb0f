"""One run: servers started, then every load on each of them in turn, again and again; those that remember what they
were asked in a second round of their own, since not all fit into memory at once."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.asking import first_vector
from benchmarks.loads import EIGHT, LOADS, TEXT_EIGHT, Contents, Load
from benchmarks.photos import PhotoKind
from benchmarks.processes import cpu_seconds, forget_peak, peak_rss
from benchmarks.results import BASELINE, Ceilings, Results, Sample, quantile
from benchmarks.servers import InProcess, Rival, Server
from benchmarks.startup import import_seconds, seconds_to_healthy

#: Of a measurement's seconds, what goes before the window; and what the ceilings cost in all, and each server's starts.
_WARM_UP_SHARE, _LEAST_WARM_UP = 0.2, 1.0
_CEILINGS, _STARTS = 150.0, 15.0


@dataclass(frozen=True)
class Plan:
    """`ceilings` are command lines by server name, as benchmarks.ceilings takes them before its SECONDS."""

    rivals: Sequence[Rival]
    remembering: Sequence[Rival]
    loads: Sequence[Load]
    ceilings: dict[str, list[str]]
    cores: Sequence[int]
    repetitions: int
    minutes: float
    work: Path

    @property
    def seconds(self) -> float:
        """Of one measurement, its warm-up included, so that all fit into `minutes`."""
        every = (*self.rivals, *self.remembering)
        measurements = self.repetitions * sum(len(rival.loads) for rival in every)
        return max(2.0, (60 * self.minutes - _CEILINGS - _STARTS * len(every)) / max(1, measurements))


def measure(plan: Plan, facts: dict[str, str]) -> Results:
    """Runs the plan. A rival that does not start is said so and left out; the baseline and our own must start."""
    results = Results(facts=facts)
    contents = {load: load.requests(plan.work / "images") for load in plan.loads}
    facts["images"] = ", ".join(_kinds(contents))
    for rival in plan.rivals:
        if rival.name.startswith("clipsrv") and not rival.in_process:
            results.startup[rival.name] = seconds_to_healthy(rival, plan.cores, _log(plan, rival), 3)
    results.startup["imports for --help"] = import_seconds(plan.rivals[0].command[0], 5)
    for name, arguments in plan.ceilings.items():
        _say(f"ceilings of {name}")
        results.ceilings[name] = _ceilings(plan, arguments)
    for rivals in (plan.rivals, plan.remembering):
        _together(plan, rivals, contents, results)
    for kind, found in results.agreement.items():
        facts[f"cosine of one {kind}'s vector to the baseline's"] = ", ".join(
            f"{name} {cosine:.5f}" for name, cosine in found.items()
        )
    return results


def _kinds(contents: Mapping[Load, list[Contents]]) -> Iterator[str]:
    """What the images are, each kind once."""
    found: dict[PhotoKind, list[int]] = {}
    for load, requests in contents.items():
        sizes = [len(one) for request in requests for one in request if isinstance(one, bytes)]
        if sizes:
            found.setdefault(load.photo, sizes)
    for photo, sizes in found.items():
        yield f"{photo.name} (mean {statistics.mean(sizes) / 1024:.0f} KiB)"


def _together(plan: Plan, rivals: Sequence[Rival], contents: Mapping[Load, list[Contents]], results: Results) -> None:
    """All of these servers at once, each load on one after the other."""
    servers = _start(plan, rivals, results)
    try:
        for kind, load in (("image", EIGHT), ("text", TEXT_EIGHT)):
            if load in contents:
                found = _agreement(servers, load, contents[load][0], results)
                results.agreement.setdefault(kind, {}).update(found)
        for repetition, load, server in itertools.product(range(plan.repetitions), plan.loads, servers):
            if load.name in server.rival.loads:
                results.samples.append(sample := _measure(plan, server, load, contents[load], repetition))
                results.save(plan.work / "results.json")  # a run that ends early leaves what it has
                _say(f"{repetition + 1}: {load.name}: {server.rival.name}: {sample.items_per_second:.2f}/s")
    finally:
        for server in servers:
            server.stop()


def _start(plan: Plan, rivals: Sequence[Rival], results: Results) -> list[Server | InProcess]:
    servers: list[Server | InProcess] = []
    for rival in rivals:
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


def _measure(plan: Plan, server: Server | InProcess, load: Load, contents: list[Contents], repetition: int) -> Sample:
    cpu: list[float] = []
    warm_up = max(_LEAST_WARM_UP, _WARM_UP_SHARE * plan.seconds)
    server.thaw()
    forget_peak(server.pid)
    try:
        outcome = server.drive(
            load,
            contents,
            warm_up,
            max(1.0, plan.seconds - warm_up),
            at_edge=lambda: cpu.append(cpu_seconds(server.pid)),
        )
    finally:
        server.freeze()
    if outcome.errors:
        _say(f"{outcome.errors} errors, the first: {outcome.first_error}")
    items = load.items * len(outcome.latencies)
    return Sample(
        server.rival.name,
        load.name,
        repetition,
        items_per_second=items / outcome.seconds,
        p50=quantile(outcome.latencies, 0.5),
        p99=quantile(outcome.latencies, 0.99),
        cpu_per_item=(cpu[1] - cpu[0]) / items if items else math.nan,
        peak_rss=peak_rss(server.pid),
        errors=outcome.errors,
        generator_cores=outcome.generator_cpu / outcome.seconds,
    )


def _ceilings(plan: Plan, arguments: list[str]) -> Ceilings:
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
    return Ceilings(**json.loads(found.stdout))


def _agreement(servers: list[Server | InProcess], load: Load, contents: Contents, results: Results) -> dict[str, float]:
    """Cosine of every server's vector of one image or text to the baseline's: they must have computed the same thing.

    A rival that is asked for such a load and gives no vector is said so and taken out of `servers`.
    """
    vectors = {}
    for server in list(servers):
        if isinstance(server, InProcess) or not _takes(server.rival, load):
            continue
        server.thaw()
        try:
            vectors[server.rival.name] = _vector(server, load, contents)
        except (LookupError, ValueError, OSError, http.client.HTTPException) as error:
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


def _takes(rival: Rival, load: Load) -> bool:
    """Whether it is asked for any load of this kind."""
    return any(bool(one.texts) if load.texts else bool(one.images) for one in LOADS if one.name in rival.loads)


def _vector(server: Server, load: Load, contents: Contents) -> list[float]:
    (request,) = server.rival.requests(load, [contents])
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    connection = http.client.HTTPConnection(*server.address, timeout=120)
    connection.request("POST", first.split()[1], body, dict(line.split(": ", 1) for line in lines))
    response = connection.getresponse()
    text = response.read().decode("utf-8", "replace")
    connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status}: {text}")
    return first_vector(json.loads(text))


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def _log(plan: Plan, rival: Rival) -> Path:
    return plan.work / f"{rival.name.replace(' ', '-').replace('+', 'and')}.log"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
