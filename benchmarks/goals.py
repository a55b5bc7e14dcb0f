"""What clipsrv is meant to reach beside its rivals, and whether a run's samples say that it does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.loads import BATCH, EIGHT, ONE, PHONES, TEXT_EIGHT, TEXT_MANY, TEXT_ONE, Load
from benchmarks.results import BASELINE, Results

OURS, CEILING = "clipsrv fp32", "clipsrv fp32, no HTTP"
#: Whoever computes in fp32 too, and whoever may compute in less.
_RIVALS_FP32, _RIVALS = (BASELINE, "infinity", "vllm fp32"), (BASELINE, "infinity", "vllm fp32", "vllm bf16")


class Goal(NamedTuple):
    """`measured` is NaN where the run has no such figure."""

    what: str
    at_least: bool
    bound: float
    measured: float

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def goals(results: Results) -> Iterator[Goal]:
    """Those that the run has figures for."""
    for goal in (*_beside_the_baseline(results), *_beside_rivals(results), *_alone(results)):
        if not math.isnan(goal.measured):
            yield goal


def _beside_the_baseline(results: Results) -> Iterator[Goal]:
    yield Goal("fp32, 8 callers, images/s by the baseline's", True, 2.0, results.ratio(OURS, EIGHT.name))
    yield Goal("fp32, requests of 16", True, 1.35, results.ratio(OURS, BATCH.name))
    for openvino, bound in ((False, 4.0), (True, 5.0)):
        fast = [name for name in _fast(results) if ("openvino" in name) == openvino]
        name = _best(results, fast, EIGHT)
        yield Goal(f"{name[8:]}, 8 callers", True, bound, results.ratio(name, EIGHT.name))
    yield Goal("fp32, 12 megapixels", True, 2.5, results.ratio(OURS, PHONES.name))
    for name in _fast(results):
        if "fast decode" in name:
            yield Goal(f"{name[8:]}, 12 megapixels", True, 6.0, results.ratio(name, PHONES.name))
    yield Goal("fp32, 1 caller, p50 by the baseline's", False, 0.55, results.ratio(OURS, ONE.name, "p50"))
    peaks = {name: _peak(results, name) for name in (OURS, BASELINE)}
    yield Goal("fp32, peak RSS by the baseline's, over all loads", False, 0.4, peaks[OURS] / peaks[BASELINE])


def _beside_rivals(results: Results) -> Iterator[Goal]:
    """The fastest rival of each row, whoever it is."""
    ours, fast = [OURS], [OURS, *(name for name in _fast(results) if "fast decode" not in name)]
    for load in (EIGHT, PHONES):
        yield _beside(results, load, "fp32", ours, _RIVALS_FP32, 2.0)
        yield _beside(results, load, "in any precision", fast, _RIVALS, 3.0)
    for load in (TEXT_ONE, TEXT_EIGHT, TEXT_MANY):
        yield _beside(results, load, "fp32", ours, _RIVALS_FP32, 1.4)
        yield _beside(results, load, "in any precision", fast, _RIVALS, 1.5)


def _beside(
    results: Results, load: Load, precision: str, ours: Sequence[str], rivals: Sequence[str], bound: float
) -> Goal:
    mine, theirs = _best(results, ours, load), _best(results, rivals, load)
    measured = results.ratio(mine, load.name, to=(theirs, load.name))
    return Goal(f"{load.name}, {precision}, by {theirs or 'the fastest rival'}", True, bound, measured)


def _alone(results: Results) -> Iterator[Goal]:
    for load in (EIGHT, TEXT_EIGHT, TEXT_MANY):
        share = results.ratio(OURS, load.name, to=(CEILING, load.name))
        bound = 0.92 if load is EIGHT else 0.95
        yield Goal(f"fp32, {load.name}, by the ceiling without HTTP", True, bound, share)
    many = results.ratio(OURS, "64 callers", to=(OURS, EIGHT.name))
    yield Goal("fp32, 64 callers by 8 callers", True, 0.95, many)
    yield Goal("fp32, seconds to healthy", False, 2.5, results.startup.get(OURS, math.nan))
    imports = results.startup.get("imports for --help", math.nan)
    yield Goal("seconds of imports for --help", False, 0.15, imports)


def _fast(results: Results) -> list[str]:
    """Ours in other precisions than fp32, with what they compute and not what they remember."""
    return [name for name in results.servers() if name.startswith("clipsrv") and not name.startswith(OURS)]


def _best(results: Results, servers: Sequence[str], load: Load) -> str:
    """The one of these with the highest rate under a load; "" if none was asked for it."""
    rates = {name: results.median(name, load.name, "items_per_second") for name in servers}
    known = {name: rate for name, rate in rates.items() if not math.isnan(rate)}
    return max(known, key=lambda name: known[name], default="")


def _peak(results: Results, server: str) -> float:
    return max((float(one.peak_rss) for one in results.samples if one.server == server), default=math.nan)
