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
    """One server under one load, in one repetition. Seconds, bytes, and images a second; `generator_cores` is the CPU
    time of the generator by the time it ran."""

    server: str
    load: str
    repetition: int
    images_per_second: float
    p50: float
    p99: float
    cpu_per_image: float
    peak_rss: int
    errors: int
    generator_cores: float


@dataclass
class Results:
    """`facts` describe machine, versions and images; `startup` and `ceilings` are medians by server and by name."""

    facts: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    startup: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)

    def servers(self) -> list[str]:
        return list(dict.fromkeys(sample.server for sample in self.samples))

    def loads(self) -> list[str]:
        return list(dict.fromkeys(sample.load for sample in self.samples))

    def median(self, server: str, load: str, what: str) -> float:
        """Median over the repetitions; NaN where there is none."""
        found = [getattr(one, what) for one in self.samples if (one.server, one.load) == (server, load)]
        return statistics.median(found) if found else math.nan

    def spread(self, server: str, load: str) -> float:
        """Largest by smallest images/s of the repetitions; NaN where there is none."""
        found = [one.images_per_second for one in self.samples if (one.server, one.load) == (server, load)]
        return max(found) / min(found) if found else math.nan

    def ratio(
        self, server: str, load: str, what: str = "images_per_second", *, to: tuple[str, str] | None = None
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
        return cls(**{**found, "samples": [Sample(**one) for one in found["samples"]]})


def quantile(values: list[float], q: float) -> float:
    """Nearest-rank quantile: an observed value, never one between two. NaN of nothing."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)] if values else math.nan
