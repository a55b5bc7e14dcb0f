"""Sections of prove-gpu for its tests: one that ends, one that fails, one that would never end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.setting import Row, Setting


def two_rows(setting: Setting) -> Iterator[Row]:
    yield {"name": "a", "images/s": 1.0}
    yield {"name": "b", "images/s": 1234.5, "note": "x | y"}


def fails(setting: Setting) -> Iterator[Row]:
    yield {"name": "before"}
    raise RuntimeError("no such card")


def endless(setting: Setting) -> Iterator[Row]:
    try:
        yield {"name": "first"}
        time.sleep(600)
    finally:
        Path(setting.work, "stopped").touch()
