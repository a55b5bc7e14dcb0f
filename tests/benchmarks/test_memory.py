"""python -m benchmarks.memory: a row for the start and for each load, of a real server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import memory


def test_each_load_has_a_row_and_the_peak_never_falls(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["memory", "--models-dir", str(tiny_model.parent), "--model", tiny_model.name, "--seconds", "0.2"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(memory, "_LOADS", {"texts": memory._TEXTS, "again": memory._TEXTS})  # photographs take seconds
    assert memory.main() == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[4:]]
    assert [row[:2] for row in rows] == [["fp32", load] for load in ("started", "texts", "again")]
    resident, peaks = [int(row[3]) for row in rows], [int(row[4]) for row in rows]
    assert all(0 < one <= peak for one, peak in zip(resident, peaks, strict=True))
    assert peaks == sorted(peaks)
