"""What the metrics of several workers are together, from the text that each gives.

Counts that a worker took with it when it ended stay in the sum: a counter that falls is a new server to whoever reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

#: Of facts, and of what is true of the whole, one is as good as another; the others are added up.
_LARGEST = (
    *("clipsrv_loop_lag_seconds", "clipsrv_model_ready", "clipsrv_model_loaded", "clipsrv_model_info"),
    *("clipsrv_build_info", "process_max_fds", "process_virtual_memory_max_bytes"),
)
_SMALLEST = ("process_start_time_seconds",)
#: Kinds of what is counted and never falls.
_COUNTED = ("counter", "histogram")


@dataclass
class Family:
    """Comments of one metric, its kind, and its samples: a name with labels as it is written, to a value."""

    comments: list[str] = field(default_factory=list)
    kind: str = "untyped"
    samples: dict[str, float] = field(default_factory=dict)


Families = dict[str, Family]


def parse(text: str) -> Families:
    """Families by name, in order, of what prometheus_client's generate_latest wrote (text format 0.0.4)."""
    found: Families = {}
    family = Family()
    for line in text.splitlines():
        if line.startswith("# "):
            _, _, name, *rest = line.split(" ", 3)
            family = found.setdefault(name, Family())
            family.comments.append(line)
            if line.startswith("# TYPE"):
                family.kind = rest[0]
        elif line:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return found


def together(reports: Iterable[Families]) -> Families:
    """One of several, which are left as they are."""
    whole: Families = {}
    for report in reports:
        for name, one in report.items():
            family = whole.setdefault(name, Family(one.comments, one.kind))
            how = _joined(name)
            for sample, value in one.samples.items():
                before = family.samples.get(sample)
                family.samples[sample] = value if before is None else how((before, value))
    return whole


def counted(report: Families) -> Families:
    """What stays of a report when its worker has ended."""
    return {name: family for name, family in report.items() if family.kind in _COUNTED}


def gauges(values: Mapping[str, tuple[str, str, float]]) -> Families:
    """Families of one sample each: a name to kind, help and value."""
    return {
        name: Family([f"# HELP {name} {text}", f"# TYPE {name} {kind}"], kind, {name: value})
        for name, (kind, text, value) in values.items()
    }


def written(families: Families) -> str:
    """The text again."""
    lines: list[str] = []
    for family in families.values():
        lines += family.comments
        lines += [f"{sample} {value!r}" for sample, value in family.samples.items()]
    return "\n".join([*lines, ""])


def _joined(name: str) -> Callable[[tuple[float, float]], float]:
    if name in _LARGEST:
        return max
    return min if name in _SMALLEST else sum
