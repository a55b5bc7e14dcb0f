"""Results to Markdown tables, and those into docs/performance.md between two marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.goals import goals
from benchmarks.plot import draw
from benchmarks.results import Ceilings, Results

_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def render(results: Results) -> str:
    """Everything measured, as Markdown."""
    parts = [_facts(results), _goals(results)]
    parts += [_load_table(results, load) for load in results.loads()]
    parts += [_limit(results), _startup(results)]
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
        rate = results.median(server, load, "items_per_second")
        if math.isnan(rate):
            continue
        rows.append(
            (
                server,
                f"{rate:.2f}",
                "" if math.isnan(ratio := results.ratio(server, load)) else f"{ratio:.2f}",
                f"{1000 * results.median(server, load, 'p50'):.0f}",
                f"{1000 * results.median(server, load, 'p99'):.0f}",
                f"{1000 * results.median(server, load, 'cpu_per_item'):.0f}",
                f"{results.median(server, load, 'peak_rss') / 2**20:.0f}",
                f"{sum(one.errors for one in results.samples if (one.server, one.load) == (server, load))}",
                f"{results.spread(server, load):.2f}",
                f"{100 * results.median(server, load, 'generator_cores'):.1f}",
            )
        )
    head = ("server", "a second", "ratio", "p50 ms", "p99 ms", "CPU ms each", "peak RSS MiB")
    return f"### {load}\n\n" + _table((*head, "errors", "max/min", "generator % of a core"), rows)


def _goals(results: Results) -> str:
    rows = [
        (
            goal.what,
            f"at {'least' if goal.at_least else 'most'} {goal.bound:g}",
            f"{goal.measured:.2f}",
            "yes" if goal.met else "no",
        )
        for goal in goals(results)
    ]
    return "### Goals\n\n" + _table(("what", "goal", "measured", "met"), rows)


def _limit(results: Results) -> str:
    """What the machine can do, what a model needs of it, and how much of it each engine uses."""
    if not results.ceilings:
        return ""
    parts = ["### The limit\n", _machine(list(results.ceilings.values()))]
    servers = list(results.ceilings)
    names = list(dict.fromkeys(name for found in results.ceilings.values() for name in found.rates))
    rows = [(name, *(_alone(results.ceilings[server], name) for server in servers)) for name in names]
    parts.append(_table(("without a server, a second (share of the peak)", *servers), rows))
    for server, found in results.ceilings.items():
        for what, operators in found.operators.items():
            rows = [_operator(*one) for one in operators if one[1] >= 0.005]
            head = (f"{server}, {what}, one core", "% of the time", "% of the core's peak")
            parts.append(_table(head, [*rows, ("all others", f"{100 - sum(float(row[1]) for row in rows):.1f}", "")]))
    return "\n".join(parts)


def _machine(every: Sequence[Ceilings]) -> str:
    peaks = {precision: max(one.peaks.get(precision, 0.0) for one in every) for one in every for precision in one.peaks}
    told = ", ".join(f"{rate / 1e9:,.0f} billion in {precision}" for precision, rate in peaks.items())
    work = {what: count for one in every for what, count in one.work.items()}
    each = ", ".join(f"{count / 1e9:.2f} billion for one of the {what}" for what, count in work.items())
    return (
        f"Operations a second of one large product through onnxruntime, two for a multiply-add: {told}; bytes read and "
        f"written a second: {max(one.bandwidth for one in every) / 1e9:.0f} billion. Counted from the graphs: {each}. "
        "The peak is measured before and after each engine; what is told of operators is of batches of 8.\n"
    )


def _alone(found: Ceilings, name: str) -> str:
    if name not in found.rates:
        return ""
    return f"{found.rates[name]:.2f}" + (f" ({100 * found.shares[name]:.0f} %)" if name in found.shares else "")


def _operator(name: str, share: float, of_peak: float) -> tuple[str, str, str]:
    return name, f"{100 * share:.1f}", f"{100 * of_peak:.0f}" if of_peak else ""


def _startup(results: Results) -> str:
    rows = [(name, f"{seconds:.2f}") for name, seconds in results.startup.items()]
    return "### Start\n\n" + _table(("from process start to healthy", "seconds"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = ("---",) + ("---:",) * (len(head) - 1)
    return "".join("| " + " | ".join(row) + " |\n" for row in (head, rule, *rows))
