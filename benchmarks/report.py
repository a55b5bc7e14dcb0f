"""Results to Markdown tables, and those into docs/performance.md between two marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.loads import BATCH, EIGHT, ONE, PHONES
from benchmarks.plot import draw
from benchmarks.results import BASELINE, Results

_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
OURS, CEILING = "clipsrv fp32", "clipsrv fp32, no HTTP"


def render(results: Results) -> str:
    """Everything measured, as Markdown."""
    parts = [_facts(results), _goals(results)]
    parts += [_load_table(results, load) for load in results.loads()]
    parts += [_ceilings(results), _startup(results)]
    return "\n".join(part for part in parts if part)


def publish(results: Results, docs: Path) -> None:
    """Writes performance.json, performance.svg and the measured part of performance.md into `docs`."""
    results.save(docs / "performance.json")
    (docs / "performance.svg").write_text(draw(results))
    page = docs / "performance.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    page.write_text(before + _BEGIN + render(results) + _END + rest.partition(_END)[2])


def _facts(results: Results) -> str:
    return "".join(f"- {name}: {value}\n" for name, value in results.facts.items())


def _load_table(results: Results, load: str) -> str:
    rows = []
    for server in results.servers():
        rate = results.median(server, load, "images_per_second")
        if math.isnan(rate):
            continue
        rows.append(
            (
                server,
                f"{rate:.2f}",
                "" if math.isnan(ratio := results.ratio(server, load)) else f"{ratio:.2f}",
                f"{1000 * results.median(server, load, 'p50'):.0f}",
                f"{1000 * results.median(server, load, 'p99'):.0f}",
                f"{1000 * results.median(server, load, 'cpu_per_image'):.0f}",
                f"{results.median(server, load, 'peak_rss') / 2**20:.0f}",
                f"{sum(one.errors for one in results.samples if (one.server, one.load) == (server, load))}",
                f"{results.spread(server, load):.2f}",
                f"{100 * results.median(server, load, 'generator_cores'):.1f}",
            )
        )
    head = ("server", "images/s", "ratio", "p50 ms", "p99 ms", "CPU ms/image", "peak RSS MiB")
    return f"### {load}\n\n" + _table((*head, "errors", "max/min", "generator % of a core"), rows)


def _goals(results: Results) -> str:
    rows: list[tuple[str, ...]] = []
    fastest = [name for name in results.servers() if name.startswith("clipsrv") and name not in {OURS, CEILING}]

    def at_least(what: str, value: float, goal: float) -> None:
        if not math.isnan(value):
            rows.append((what, f"at least {goal:g}", f"{value:.2f}", "yes" if value >= goal else "no"))

    def at_most(what: str, value: float, goal: float) -> None:
        if not math.isnan(value):
            rows.append((what, f"at most {goal:g}", f"{value:.2f}", "yes" if value <= goal else "no"))

    at_least("fp32, 8 callers, images/s by the baseline's", results.ratio(OURS, EIGHT.name), 2.0)
    share = results.ratio(OURS, EIGHT.name, to=(CEILING, EIGHT.name))
    at_least("fp32, 8 callers, by the ceiling without HTTP", share, 0.92)
    at_least("fp32, requests of 16", results.ratio(OURS, BATCH.name), 1.35)
    for openvino, goal in ((False, 4.0), (True, 5.0)):
        rates = {results.ratio(one, EIGHT.name): one[8:] for one in fastest if ("openvino" in one) == openvino}
        ratio = max((one for one in rates if not math.isnan(one)), default=math.nan)
        at_least(f"{rates.get(ratio)}, 8 callers", ratio, goal)
    at_least("fp32, 12 megapixels", results.ratio(OURS, PHONES.name), 2.5)
    for name in fastest:
        if "fast decode" in name:
            at_least(f"{name[8:]}, 12 megapixels", results.ratio(name, PHONES.name), 6.0)
    at_most("fp32, 1 caller, p50 by the baseline's", results.ratio(OURS, ONE.name, "p50"), 0.55)
    many = results.ratio(OURS, "64 callers", to=(OURS, EIGHT.name))
    at_least("fp32, 64 callers by 8 callers", many, 0.95)
    peaks = {name: _peak(results, name) for name in (OURS, BASELINE)}
    at_most("fp32, peak RSS by the baseline's, over all loads", peaks[OURS] / peaks[BASELINE], 0.4)
    at_most("fp32, seconds to healthy", results.startup.get(OURS, math.nan), 2.5)
    at_most("seconds of imports for --help", results.startup.get("imports for --help", math.nan), 0.15)
    return "### Goals\n\n" + _table(("what", "goal", "measured", "met"), rows)


def _peak(results: Results, server: str) -> float:
    return max((float(one.peak_rss) for one in results.samples if one.server == server), default=math.nan)


def _ceilings(results: Results) -> str:
    if not results.ceilings:
        return ""
    servers = list(results.ceilings)
    names = list(dict.fromkeys(name for found in results.ceilings.values() for name in found))
    rows = [(name, *(f"{results.ceilings[server].get(name, math.nan):.2f}" for server in servers)) for name in names]
    return "### The parts alone, images/s\n\n" + _table(("without a server", *servers), rows)


def _startup(results: Results) -> str:
    rows = [(name, f"{seconds:.2f}") for name, seconds in results.startup.items()]
    return "### Start\n\n" + _table(("from process start to healthy", "seconds"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = ("---",) + ("---:",) * (len(head) - 1)
    return "".join("| " + " | ".join(row) + " |\n" for row in (head, rule, *rows))
