"""The standard streams of a job that has nobody listening: closed, on a full disk, or a pipe whose reader has gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, TypeVar

Result = TypeVar("Result")


class Voice:
    """stderr, or another stream; what cannot be said there is left unsaid, and harms nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @property
    def encoding(self) -> str | None:
        return getattr(self._stream, "encoding", None)

    def isatty(self) -> bool:
        return bool(self._try(lambda stream: stream.isatty()))

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def _try(self, act: Callable[[TextIO], Result]) -> Result | None:
        try:
            return None if self._stream is None else act(self._stream)
        except (OSError, ValueError):  # ValueError: closed in Python
            self._silence()
            return None

    def _silence(self) -> None:
        # What Python still holds for the stream would fail again at the end, and change the exit status.
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), stream.fileno() if stream else null.fileno())
