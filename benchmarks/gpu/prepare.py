"""Checkpoints of random weights and the models converted from them, once: the same bytes on every machine.

Runs on onnxruntime's own CPU kernels, as converting always does, several models at once.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.setting import Row, Setting

_ROOT = Path(__file__).parents[2]


def measure(setting: Setting) -> Iterator[Row]:
    """Each model, with fp16 for a card."""
    precisions = ["fp16"] if setting.device == "cuda" else []
    yield from _prepare_all(setting, {model: (model, precisions) for model in setting.models})


def for_cpu(setting: Setting) -> Iterator[Row]:
    """The first model once more with int8, which takes long to convert: what is measured of a card does without."""
    yield from _prepare_all(setting, {setting.on_cpu: (setting.models[0], ["int8"])})


def _prepare_all(setting: Setting, wanted: Mapping[str, tuple[str, Sequence[str]]]) -> Iterator[Row]:
    """Models by name, of a geometry and in precisions; what another process prepares is waited for."""
    setting.models_dir.mkdir(parents=True, exist_ok=True)
    with Path(setting.work, "prepare.lock").open("w") as lock, ThreadPoolExecutor(len(wanted)) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from pool.map(lambda name: _prepare(setting, name, *wanted[name]), wanted)


def _prepare(setting: Setting, name: str, model: str, precisions: Sequence[str]) -> Row:
    begun, checkpoint = time.monotonic(), setting.checkpoint(model)
    if not checkpoint.exists():
        partial = checkpoint.with_name(f"{model}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _run([str(_ROOT / "scripts/make-random-checkpoint"), model, str(partial)])
        partial.rename(checkpoint)
    made = time.monotonic()
    if not (setting.models_dir / name / "manifest.json").exists():
        flags = [part for precision in precisions for part in ("--precision", precision)]
        alone = Path(setting.work, "converting", name)  # a converter locks its models folder
        where = ["--checkpoint", str(checkpoint), "--name", name, "--models-dir", str(alone)]
        _run(["-m", "conversions", *where, *flags])
        (alone / name).rename(setting.models_dir / name)
    return {
        "model": name,
        "checkpoint, s": round(made - begun, 1),
        "conversion, s": round(time.monotonic() - made, 1),
    }


def _run(command: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, *command], cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]}: {(done.stderr or done.stdout).strip()[-600:]}")
