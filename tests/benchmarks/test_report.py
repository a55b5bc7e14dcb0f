"""The table of goals and the plot say what the samples say."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, report
from benchmarks.goals import OURS
from benchmarks.loads import EIGHT, TEXT_MANY
from benchmarks.results import BASELINE, Ceilings, Results, Sample

DOCS = Path(__file__).parents[2] / "docs"
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
                for server, rate in zip((OURS, BASELINE), pair, strict=True)
            ]
        )
    )


def test_texts_are_held_against_the_fastest_rival_of_the_row() -> None:
    rates = {OURS: 120.0, BASELINE: 20.0, "vllm fp32": 60.0, "vllm bf16": 100.0, "clipsrv int8": 160.0}
    page = report.render(Results(samples=[sample(name, TEXT_MANY.name, rate) for name, rate in rates.items()]))
    assert "| texts, 64 callers, fp32, by vllm fp32 | at least 1.4 | 2.00 | yes |" in page
    assert "| texts, 64 callers, in any precision, by vllm bf16 | at least 1.5 | 1.60 | yes |" in page


def test_an_engine_is_told_with_its_share_of_the_peak_and_what_the_rest_is() -> None:
    found = Ceilings(
        rates={"engine alone, images, batches of 8": 25.0, "decoding alone": 400.0},
        shares={"engine alone, images, batches of 8": 0.75},
        work={"images": 8.2e9},
        operators={"images": [("MatMul", 0.85, 0.95), ("Softmax", 0.149, 0.0), ("Slice", 0.001, 0.0)]},
        peaks={"fp32": 277e9},
        bandwidth=43e9,
    )
    page = report.render(Results(samples=[sample(OURS, EIGHT.name, 20)], ceilings={OURS: found}))
    assert "277 billion in fp32" in page
    assert "8.20 billion for one of the images" in page
    assert "| engine alone, images, batches of 8 | 25.00 (75 %) |" in page
    assert "| decoding alone | 400.00 |" in page
    assert "| MatMul | 85.0 | 95 |" in page
    assert "| all others | 0.1 |  |" in page


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    found = Results(samples=[sample(OURS, EIGHT.name, 20)], ceilings={OURS: Ceilings(rates={"decoding": 1.0})})
    found.save(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == found


def test_the_published_figures_can_be_rendered_again() -> None:
    assert "| clipsrv fp32 |" in report.render(Results.read(DOCS / "performance.json"))
