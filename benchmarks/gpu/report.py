"""Findings as a page: a table for each section, columns as its rows name them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def render(findings: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    return "\n".join(part for finding in findings for part in _section(finding))


def _section(finding: Mapping[str, Any]) -> list[str]:
    rows: list[Mapping[str, Any]] = finding["rows"]
    lines = [f"## {finding['title']}", "", f"{finding['end']} ({finding['seconds']:.0f} s)".capitalize(), ""]
    if not rows:
        return lines
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numbers = {name for name in columns if all(isinstance(row.get(name, 0), int | float) for row in rows)}
    lines.append(f"| {' | '.join(columns)} |")
    lines.append(f"| {' | '.join('---:' if name in numbers else '---' for name in columns)} |")
    lines += [f"| {' | '.join(_cell(row.get(name, '')) for name in columns)} |" for row in rows]
    return [*lines, ""]


def _cell(value: object) -> str:
    if isinstance(value, float):
        if value and abs(value) < 0.01:
            return f"{value:.1e}"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
