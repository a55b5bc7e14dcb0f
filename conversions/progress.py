"""What the converter is doing, on stderr: a bar of stages on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def counted(items: Iterable[Item], count: int, what: str) -> Iterator[Item]:
    """These `count` items; on a terminal a second bar, below the stage's, shows how many of them are done."""
    yield from tqdm(
        items, total=count, bar_format="  {desc}: {n_fmt} of {total_fmt}", desc=what, disable=None, leave=False
    )


class Progress:
    """Called with the name of each stage as it begins; `stages` is how many there will be."""

    def __init__(self, stages: int) -> None:
        layout = "[{n_fmt}/{total_fmt}] {desc} ({elapsed})"
        self._bar = tqdm(total=stages, bar_format=layout, disable=None, leave=False)
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, stage: str) -> None:
        if self._bar.disable:
            print(f"[{time.monotonic() - self._began:6.1f} s] {stage}", file=sys.stderr, flush=True)
            return
        self._bar.set_description_str(stage, refresh=False)
        self._bar.update()
        self._bar.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
