"""What was measured on, and with which versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import onnxruntime as ort

from benchmarks.gpu.setting import Row, Setting
from clipsrv.images.resize import COMPILED
from clipsrv.machine import memory_limit, physical_memory, usable_cores
from clipsrv.processor import this_processor

_CARD = "name,memory.total,driver_version,compute_cap,clocks.max.sm,power.limit"
_PACKAGES = ("onnxruntime-gpu", "torch", "transformers", "numpy", "pillow", "aiohttp", "flask")


def measure(setting: Setting) -> Iterator[Row]:
    """One fact a row."""
    if program := shutil.which("nvidia-smi"):
        asked = subprocess.run(
            [program, f"--query-gpu={_CARD}", "--format=csv,noheader"], capture_output=True, text=True
        )
        yield {"fact": "card", "value": (asked.stdout or asked.stderr).strip()}
    yield {"fact": "CPU", "value": f"{usable_cores()} cores of {this_processor().name}"}
    yield {"fact": "its features", "value": ", ".join(this_processor().features or ("cannot tell",))}
    memory = min(physical_memory(), memory_limit() or physical_memory())
    yield {"fact": "memory", "value": f"{memory / 2**30:.0f} GiB"}
    yield {"fact": "system", "value": f"{platform.platform()}, Python {platform.python_version()}"}
    yield {"fact": "packages", "value": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)}
    yield {"fact": "onnxruntime's providers", "value": ", ".join(ort.get_available_providers())}
    yield {"fact": "images are resized by", "value": "the compiled part" if COMPILED else "Pillow"}
    yield {"fact": "load of other processes at the beginning", "value": f"{os.getloadavg()[0]:.1f}"}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"
