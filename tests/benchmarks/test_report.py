"""The table of goals and the plot say what the samples say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import plot, report
from benchmarks.loads import EIGHT
from benchmarks.results import BASELINE, Results, Sample

SVG = "{http://www.w3.org/2000/svg}"


def sample(server: str, load: str, rate: float, repetition: int = 0) -> Sample:
    return Sample(server, load, repetition, rate, 0.05, 0.1, 0.1, 300 << 20, 0, 0.01)


def bars(results: Results) -> dict[str, list[float]]:
    """Widths of the bars of each colour; those of the legend are left out."""
    found: dict[str, list[float]] = {}
    for one in ElementTree.fromstring(plot.draw(results)).iter(f"{SVG}rect"):
        if one.get("x") and one.get("width") != "12":
            found.setdefault(one.get("fill", ""), []).append(float(one.get("width", "")))
    return found


def test_every_server_has_a_colour_of_its_own() -> None:
    names = [BASELINE, "infinity", *(f"clipsrv {number}" for number in range(8))]
    assert len(bars(Results(samples=[sample(name, "1 caller", 10) for name in names]))) == len(names)


def test_a_bar_is_as_long_as_its_server_is_fast() -> None:
    rates = [sample(BASELINE, "1 caller", 10), sample("clipsrv", "1 caller", 25), sample("clipsrv", "8 callers", 50)]
    baseline, ours = bars(Results(samples=rates)).values()
    assert ours == pytest.approx([2.5 * baseline[0], 5 * baseline[0]], abs=0.2)


def test_a_goal_is_met_by_the_median_ratio_within_repetitions() -> None:
    """A machine half as fast in one repetition slows both, and changes no ratio."""
    pairs = [(21.0, 10.0), (10.5, 5.0), (19.0, 10.0)]
    assert "| at least 2 | 2.10 | yes |" in goals(pairs)
    assert "| at least 2 | 1.50 | no |" in goals([(15.0, 10.0)])


def goals(pairs: list[tuple[float, float]]) -> str:
    """What is reported of these images/s, ours and the baseline's, a pair for each repetition, under 8 callers."""
    return report.render(
        Results(
            samples=[
                sample(server, EIGHT.name, rate, repetition)
                for repetition, pair in enumerate(pairs)
                for server, rate in zip((report.OURS, BASELINE), pair, strict=True)
            ]
        )
    )
