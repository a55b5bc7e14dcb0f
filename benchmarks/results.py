"""What a run found: samples, their medians, and ratios to the baseline; to and from JSON."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

BASELINE = "flask + torch"


@dataclass(frozen=True)
class Sample:
    """One server under one load, in one repetition. Seconds, bytes, and images or texts a second; `generator_cores` is
    the CPU time of the generator by the time it ran."""

    server: str
    load: str
    repetition: int
    items_per_second: float
    p50: float
    p99: float
    cpu_per_item: float
    peak_rss: int
    errors: int
    generator_cores: float


@dataclass
class Ceilings:
    """What the parts of a server could do alone: `rates` a second by part; `shares` of the machine's peak that engines
    among them use; `work`, operations an image and a text take; `operators` by tower: the name, the share of its time
    and of one core's peak. `peaks` are operations a second by precision, `bandwidth` bytes a second."""

    rates: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    operators: dict[str, list[tuple[str, float, float]]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    bandwidth: float = 0.0


@dataclass
class Results:
    """`facts` describe machine, versions and images; `startup` is in seconds by server;
    `agreement` is the cosine to the baseline's vector, of an image and of a text, by server."""

    facts: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    startup: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, Ceilings] = field(default_factory=dict)
    agreement: dict[str, dict[str, float]] = field(default_factory=dict)

    def servers(self) -> list[str]:
        return list(dict.fromkeys(sample.server for sample in self.samples))

    def loads(self) -> list[str]:
        return list(dict.fromkeys(sample.load for sample in self.samples))

    def median(self, server: str, load: str, what: str) -> float:
        """Median over the repetitions; NaN where there is none."""
        found = [getattr(one, what) for one in self.samples if (one.server, one.load) == (server, load)]
        return statistics.median(found) if found else math.nan

    def spread(self, server: str, load: str) -> float:
        """Largest by smallest rate of the repetitions; NaN where there is none."""
        found = [one.items_per_second for one in self.samples if (one.server, one.load) == (server, load)]
        return max(found) / min(found) if found else math.nan

    def ratio(
        self, server: str, load: str, what: str = "items_per_second", *, to: tuple[str, str] | None = None
    ) -> float:
        """Median over the repetitions of the ratio within each, to the baseline under the same load unless `to` names
        another server and load: what slows the machine for a while then slows both. NaN where there is none."""
        mine, theirs = (
            {one.repetition: getattr(one, what) for one in self.samples if (one.server, one.load) == place}
            for place in ((server, load), to or (BASELINE, load))
        )
        found = [value / theirs[repetition] for repetition, value in mine.items() if repetition in theirs]
        return statistics.median(found) if found else math.nan

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        found = json.loads(path.read_text())
        return cls(
            **found
            | {
                "samples": [Sample(**one) for one in found["samples"]],
                "ceilings": {name: Ceilings(**one) for name, one in found["ceilings"].items()},
            }
        )


def quantile(values: list[float], q: float) -> float:
    """Nearest-rank quantile: an observed value, never one between two. NaN of nothing."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)] if values else math.nan
