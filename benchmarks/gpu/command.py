"""What clipsrv does on an NVIDIA card, beside PyTorch on the same card: one command, no network, eight minutes.

    scripts/prove-gpu pack FOLDER               # here, where packages can be downloaded
    scripts/prove-gpu run FOLDER --out RESULTS  # there; or --here, with what its Python has installed

The machine there needs a driver for CUDA 13, and a Python 3.12 with torch for CUDA 13, numpy and onnx. The rest is
packed. Standard library only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu import pack as packing
from benchmarks.gpu.budget import run_all
from benchmarks.gpu.sections import SECTIONS
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.unpack import Place, unpack

ROOT = Path(__file__).parents[2]
#: A dry run on a CPU: what a card would be asked, in small.
_DRY = {"models": ("tiny",), "seconds": 0.1, "batches": (1, 4), "callers": (1, 4)}


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.do == "pack":
        folders = packing.pack(arguments.folder, _photographs(arguments.folder), arguments.piece * 2**20)
        for folder in folders:
            size = sum(file.stat().st_size for file in folder.iterdir())
            print(f"{folder}: {size / 2**20:.0f} MiB")
        return 0
    deadline = time.monotonic() + 60 * arguments.minutes
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    setting = Setting(str(work), arguments.device)
    if arguments.device == "cpu":
        setting = replace(setting, **_DRY)  # type: ignore[arg-type]
    if arguments.models:
        setting = replace(setting, models=arguments.models.split(","))
    chosen = arguments.only.split(",") if arguments.only else [section.name for section in SECTIONS]
    if unknown := set(chosen) - {section.name for section in SECTIONS}:
        raise SystemExit(f"there is no section {', '.join(sorted(unknown))}")
    sections = [section for section in SECTIONS if section.name in chosen]
    on_cpu = arguments.device == "cpu" or all(section.runtime == "cpu" for section in sections)
    place = (
        Place(ROOT)
        if arguments.here
        else unpack(arguments.folder, work, runtimes=("cpu",) if on_cpu else ("cpu", "gpu"))
    )
    print(f"unpacked with {deadline - time.monotonic():.0f} s left", flush=True)
    findings = run_all(sections, setting, place, arguments.out, deadline, lambda line: print(line, flush=True))
    print(f"{arguments.out / 'results.md'} has the tables, results.json the figures, log.txt what was said on the way")
    return 0 if all(finding.end == "whole" or finding.end.startswith("not run") for finding in findings) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/prove-gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="do", required=True)
    pack = commands.add_parser("pack", help="make the folder that travels", allow_abbrev=False)
    pack.add_argument("folder", type=Path, help="where to write it; replaced")
    pack.add_argument("--piece", type=int, default=45, metavar="MIB", help="most of one numbered folder (default 45)")
    run = commands.add_parser("run", help="measure", allow_abbrev=False)
    run.add_argument("folder", type=Path, nargs="?", help="what was packed")
    run.add_argument("--here", action="store_true", help="with this clone and what this Python has installed")
    run.add_argument("--out", type=Path, default=Path("prove-gpu"), help="where to write the results")
    run.add_argument("--work", type=Path, default=Path("/tmp/prove-gpu"), help="where to unpack and make models")
    run.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is a dry run with a tiny model")
    run.add_argument("--minutes", type=float, default=8, help="for everything (default 8)")
    run.add_argument("--models", help="models to measure, by commas: geometries of scripts/make-random-checkpoint")
    run.add_argument("--only", help="sections to run, by commas: " + ", ".join(section.name for section in SECTIONS))
    return parser


def _photographs(folder: Path) -> Path | None:
    """What scripts/bench measures with, made here; none without the packages whose photographs they are made of."""
    try:
        from benchmarks.gpu.served import photographs
    except ImportError as error:
        print(f"without photographs: {error}", file=sys.stderr)
        return None
    setting = Setting(str(folder.resolve().with_name(f"{folder.name}.photographs")))
    photographs(setting)
    return setting.images_dir


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
