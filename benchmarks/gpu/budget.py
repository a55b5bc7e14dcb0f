"""Runs sections one after the other in processes of their own, within a time; writes what is known after each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.gpu.report import render
from benchmarks.gpu.sections import Section
from benchmarks.gpu.setting import Row, Setting
from benchmarks.gpu.unpack import Place

#: Seconds that a section may take to end its servers once it is told to stop.
_TO_STOP = 10.0
NO_TIME = "not run: no time left"


@dataclass
class Finding:
    """A section and what came of it: its rows, and how it ended."""

    name: str
    title: str
    end: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


def run_all(
    sections: Sequence[Section], setting: Setting, place: Place, out: Path, deadline: float,
    say: Callable[[str], None] = print,
) -> list[Finding]:  # fmt: skip
    """`deadline` is of time.monotonic. Each section has what is left, at most its own `most`. Writes results.json,
    results.md and the sections' own log into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    findings: list[Finding] = []
    for section in sections:
        left = deadline - time.monotonic()
        if section.on_gpu and setting.device != "cuda":
            findings.append(Finding(section.name, section.title, "not run: it needs a card"))
        elif left < section.least:
            findings.append(Finding(section.name, section.title, NO_TIME))
        else:
            findings.append(_run(section, setting, place, out, min(left, section.most)))
        done = findings[-1]
        say(f"{done.name}: {done.end}, {len(done.rows)} rows, {done.seconds:.0f} s")
        (out / "results.json").write_text(json.dumps([asdict(one) for one in findings], indent=1), encoding="utf-8")
        (out / "results.md").write_text(render([asdict(one) for one in findings]), encoding="utf-8")
    return findings


def _run(section: Section, setting: Setting, place: Place, out: Path, seconds: float) -> Finding:
    rows, log = Path(setting.work, f"{section.name}.rows"), out / "log.txt"
    rows.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.sections", section.measure, setting.to_json(), str(rows)]
    runtime = section.runtime if setting.device == "cuda" else "cpu"
    begun = time.monotonic()
    with log.open("ab") as output:
        output.write(f"--- {section.name}\n".encode())
        output.flush()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=place.source, env=place.environment(runtime),
            start_new_session=True,
        )  # fmt: skip
        try:
            end = "whole" if process.wait(seconds) == 0 else f"failed: {_last_line(log)}"
        except subprocess.TimeoutExpired:
            _stop(process)
            end = f"cut short after {seconds:.0f} s"
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True) if rows.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return Finding(section.name, section.title, end, round(time.monotonic() - begun, 1), found)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
