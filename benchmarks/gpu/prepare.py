"""Checkpoints of random weights and the models converted from them, once: the same bytes on every machine.

Runs on onnxruntime's own CPU kernels, as converting always does, all models at once.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.setting import Row, Setting

_ROOT = Path(__file__).parents[2]


def measure(setting: Setting) -> Iterator[Row]:
    """Each model with the precisions that are measured of it; what another process prepares is waited for."""
    setting.models_dir.mkdir(parents=True, exist_ok=True)
    with Path(setting.work, "prepare.lock").open("w") as lock, ThreadPoolExecutor(len(setting.models)) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from pool.map(lambda model: _prepare(setting, model), setting.models)


def precisions(setting: Setting, model: str) -> list[str]:
    """fp16 is for a card; int8 is of the first model only, whose rows on the CPU are measured."""
    return [*(["fp16"] if setting.device == "cuda" else []), *(["int8"] if model == setting.models[0] else [])]


def _prepare(setting: Setting, model: str) -> Row:
    begun, checkpoint = time.monotonic(), setting.checkpoint(model)
    if not checkpoint.exists():
        partial = checkpoint.with_name(f"{model}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _run([str(_ROOT / "scripts/make-random-checkpoint"), model, str(partial)])
        partial.rename(checkpoint)
    made = time.monotonic()
    if not (setting.models_dir / model / "manifest.json").exists():
        flags = [part for name in precisions(setting, model) for part in ("--precision", name)]
        alone = Path(setting.work, "converting", model)  # a converter locks its models folder
        where = ["--checkpoint", str(checkpoint), "--name", model, "--models-dir", str(alone)]
        _run(["-m", "conversions", *where, *flags])
        (alone / model).rename(setting.models_dir / model)
    return {
        "model": model,
        "checkpoint, s": round(made - begun, 1),
        "conversion, s": round(time.monotonic() - made, 1),
    }


def _run(command: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, *command], cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]}: {(done.stderr or done.stdout).strip()[-600:]}")
