"""Sections of whole servers: end to end beside Flask, decoding alone, several processes."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from benchmarks.asking import ask_guide
from benchmarks.generator import Generator
from benchmarks.gpu.engine import rate
from benchmarks.gpu.graphs import as_served, graph
from benchmarks.gpu.setting import Row, Setting
from benchmarks.loads import SHOP
from benchmarks.photos import make_images
from benchmarks.processes import cpu_seconds
from benchmarks.rivals import clipsrv_rival, flask_rival
from benchmarks.servers import Rival, Server
from benchmarks.window import Outcome
from clipsrv.models.loading import load_model
from clipsrv.settings import ImageLimits, ModelSettings

#: Photographs that requests rotate through.
PHOTOGRAPHS = 32
_WARM_UP = 0.5


def served(setting: Setting) -> Iterator[Row]:
    """Images a second, and the time of the middle and the slowest answers, over HTTP."""
    for rival in rivals(setting):
        try:
            yield from answers(setting, rival)
        except (RuntimeError, OSError) as error:  # it did not start, or hung up
            yield {"server": rival.name, "failed": str(error).strip()[-300:]}


def rivals(setting: Setting) -> list[Rival]:
    """clipsrv in each precision, launch by launch where it would replay, with batches for a card, the baseline, and
    the other models."""
    model, fast, card = setting.models[0], setting.precisions[-1], ("--max-batch-size", "64")
    alone = [ours(setting, model, precision, ()) for precision in reversed(setting.precisions)]
    if setting.device == "cuda":
        alone.append(_launch_by_launch(alone[0]))
    others = [ours(setting, other, fast, card) for other in setting.models[1:]]
    baseline = flask_rival(sys.executable, setting.checkpoint(model), (), setting.device)
    return [*alone, ours(setting, model, fast, card), baseline, *others]


def decoding(setting: Setting) -> Iterator[Row]:
    """Photographs to pixels by threads, beside what the engine takes: which of the two bounds a server here."""
    model = setting.models[0]
    with_pixels = load_model(setting.models_dir / model, ModelSettings("cpu", "fp32", text=False))
    blobs, limits = photographs(setting), ImageLimits()
    decoded = 0.0
    for threads in sorted({1, *setting.cores}):
        decoded = _decoded(lambda blob: with_pixels.read_image(blob, limits), blobs, threads, 3 * setting.seconds)
        yield {"what": "decoding, threads", "how many": threads, "images/s": decoded}
    for precision in setting.precisions:
        compute, size = as_served(one := graph(setting, model, precision)), min(64, setting.batches[-1])
        pixels = one.batch(size)
        computed = size * rate(lambda: compute(pixels), setting.seconds)  # noqa: B023 - called at once
        bound = "decoding" if decoded < computed else "the engine"
        yield {"what": f"engine {precision}, batch", "how many": size, "images/s": computed, "bound by": bound}


def workers(setting: Setting) -> Iterator[Row]:
    """A server of one process beside servers of several on the same cores."""
    yield from processes(setting, sorted(os.sched_getaffinity(0)), setting.models[0], setting.precisions[-1])


def answers(
    setting: Setting, rival: Rival, cores: Sequence[int] | None = None, callers: Sequence[int] | None = None
) -> Iterator[Row]:
    """What each number of callers sees of a server on `cores`, which is started for it."""
    cores = cores or sorted(os.sched_getaffinity(0))
    server = Server(rival, cores, _log(setting), patience=60)
    try:
        for count in callers or setting.callers:
            edges: list[float] = []
            outcome = Generator(server.address, _requests(setting), count).run(
                _WARM_UP,
                6 * setting.seconds,
                lambda: edges.append(cpu_seconds(server.pid)),  # noqa: B023
            )
            busy = (edges[1] - edges[0]) / outcome.seconds
            yield {"server": rival.name, **_row(count, outcome), "cores busy": busy}
    finally:
        server.stop()


def photographs(setting: Setting) -> list[bytes]:
    return make_images(SHOP, PHOTOGRAPHS, setting.images_dir)


def _requests(setting: Setting) -> list[bytes]:
    return [ask_guide([blob], SHOP.format, "localhost") for blob in photographs(setting)]


def ours(setting: Setting, model: str, precision: str, flags: Sequence[str]) -> Rival:
    given = ("--device", setting.device, "--precision", precision, "--no-text", *flags)
    name = " ".join(["clipsrv", model, precision, *flags])
    return clipsrv_rival(name, sys.executable, setting.models_dir, model, given, ())


def _launch_by_launch(server: Rival) -> Rival:
    command = tuple("benchmarks.gpu.launch_by_launch" if part == "clipsrv" else part for part in server.command)
    return replace(server, name=f"{server.name}, launch by launch", command=command)


def _row(callers: int, outcome: Outcome) -> Row:
    latencies = sorted(outcome.latencies) or [0.0]
    return {
        "callers": callers,
        "images/s": len(outcome.latencies) / outcome.seconds,
        "p50 ms": 1000 * statistics.median(latencies),
        "p99 ms": 1000 * latencies[int(0.99 * (len(latencies) - 1))],
        "errors": outcome.errors,
        "generator": outcome.generator_cpu / outcome.seconds,
        **({"first error": outcome.first_error[:200]} if outcome.errors else {}),
    }


def processes(setting: Setting, cores: Sequence[int], model: str, precision: str) -> Iterator[Row]:
    callers = setting.callers[-1]
    for count in (1, 2, 4):
        if count > len(cores):
            return
        server = Server(ours(setting, model, precision, ("--workers", str(count))), cores, _log(setting), patience=60)
        try:
            # As many generators each time, or it would be the generator that is measured.
            drivers = [(server.address, _requests(setting), callers // 4, 6 * setting.seconds)] * 4
            with ProcessPoolExecutor(len(drivers), mp_context=get_context("spawn")) as pool:
                outcomes = list(pool.map(_drive, *zip(*drivers, strict=True)))
        finally:
            server.stop()
        rates = [len(outcome.latencies) / outcome.seconds for outcome in outcomes]
        latencies = sorted(itertools.chain.from_iterable(outcome.latencies for outcome in outcomes)) or [0.0]
        yield {
            "server": server.rival.name,
            "callers": callers,
            "images/s": sum(rates),
            "p50 ms": 1000 * statistics.median(latencies),
            "errors": sum(outcome.errors for outcome in outcomes),
        }


def _drive(address: tuple[str, int], requests: list[bytes], callers: int, seconds: float) -> Outcome:
    return Generator(address, requests, max(1, callers)).run(_WARM_UP, seconds)


def _decoded(read: object, blobs: list[bytes], threads: int, seconds: float) -> float:
    assert callable(read)
    end = time.monotonic() + seconds

    def work(number: int) -> int:
        count = 0
        while time.monotonic() < end:
            read(blobs[(number + count) % len(blobs)])
            count += 1
        return count

    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads))) / (time.monotonic() - begun)


def _log(setting: Setting) -> Path:
    return Path(setting.work, "server.log")
