"""The section of the CPU by its cores: the engine alone, then servers of one process and of several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.gpu.engine import rate
from benchmarks.gpu.graphs import Graph, graph
from benchmarks.gpu.served import answers, ours, processes
from benchmarks.gpu.setting import Row, Setting
from clipsrv.manifest import load_manifest
from clipsrv.runtime.encoder import Encoder, SessionEncoder
from clipsrv.runtime.opening import open_encoder
from clipsrv.runtime.session import open_session

#: What a server computes at once by default, and what it does if it is told to.
_BATCHES = (8, 16)


def cores(setting: Setting) -> Iterator[Row]:
    """In fp32 and int8. The engine is measured as it is served, a part of a batch for each thread where that is what
    the precision takes, and with threads that share every operator instead."""
    setting, everything = replace(setting, device="cpu"), sorted(os.sched_getaffinity(0))
    variants = load_manifest(setting.models_dir / setting.on_cpu).towers["vision"].variants
    kept = [precision for precision in ("int8", "fp32") if precision in variants]
    for precision in kept:
        one = graph(setting, setting.on_cpu, precision)
        for count in setting.cores:
            with _on(everything[:count]):  # a session's threads are born with it
                yield {"cores": count, "precision": precision, "what": "engine alone", **_alone(one, setting.seconds)}
    for precision in kept:
        rival = ours(setting, setting.on_cpu, precision, ())
        for count in setting.cores:
            for row in answers(setting, rival, everything[:count], callers=[16]):
                yield {"cores": count, "precision": precision, "what": "server", **row}
    for precision in kept:
        for row in processes(setting, everything, setting.on_cpu, precision):
            yield {"cores": len(everything), "precision": precision, "what": "server", **row}


def _alone(one: Graph, seconds: float) -> Row:
    found: Row = {}
    for name, encoder in _ways(one):
        for size in _BATCHES:
            pixels = one.batch(size)
            found[f"{name}, batch {size}"] = size * rate(lambda: encoder.embed(pixels), 2 * seconds)  # noqa: B023
        encoder.close()
    return found


def _ways(one: Graph) -> Iterator[tuple[str, Encoder]]:
    yield "as served", open_encoder(one.file, one.spec, one.manifest.dimensions, one.plan)
    yield "threads share operators", SessionEncoder(open_session(one.file, one.plan), one.spec, one.manifest.dimensions)


@contextmanager
def _on(cores: list[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
