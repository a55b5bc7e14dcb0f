"""A limit on the time of one image: what a decoder does not finish ends the process, and is left out from then on.

A thread that decodes cannot be ended, only its process can. What it was at is written down first, by its content, so
that the next run passes it over and goes on. Knows nothing of images.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Deadline:
    """Calls `leave` with the path of work that takes more than `seconds`, in a thread of its own; 0 is no limit.

    Counts ticks and not the clock: while the process is stopped (SIGSTOP, a laptop asleep) no work is late.
    """

    def __init__(self, seconds: float, file: Path, leave: Callable[[str], None]) -> None:
        """`file` keeps the sha256 of late work, one JSON object a line. Raises OSError if it cannot be read."""
        self._tick, self._file, self._leave = min(1.0, seconds / 8), file, leave
        self._limit = seconds / self._tick if seconds else 0.0
        self._late = frozenset(_contents(file)) if file.exists() else frozenset()
        self._ticks = 0
        self._begun: dict[object, tuple[int, str, str]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)
        if seconds:
            self._thread.start()

    def was_late(self, sha256: str) -> bool:
        """Whether an earlier process ended at this content."""
        return sha256 in self._late

    @contextmanager
    def over(self, path: str, sha256: str) -> Iterator[None]:
        """Watches what is done within."""
        key = object()
        with self._lock:
            self._begun[key] = (self._ticks, path, sha256)
        try:
            yield
        finally:
            with self._lock:
                self._begun.pop(key, None)

    def close(self) -> None:
        """Watches no more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(self._tick):
            with self._lock:
                self._ticks += 1
                late = [key for key, (begun, _, _) in self._begun.items() if self._ticks - begun > self._limit]
                work = [self._begun.pop(key) for key in late]
            for _, path, sha256 in work:
                with suppress(OSError):  # where it cannot be kept, the next process ends here again
                    self._keep(path, sha256)
                self._leave(path)

    def _keep(self, path: str, sha256: str) -> None:
        line = json.dumps({"path": path, "sha256": sha256}).encode()
        with self._file.open("ab") as file:
            file.write(b"\n" + line + b"\n")  # a line before it may be cut short
            file.flush()
            os.fsync(file.fileno())


def _contents(file: Path) -> Iterator[str]:
    for line in file.read_bytes().split(b"\n"):
        with suppress(ValueError):  # cut short, by a power cut or a full disk
            yield json.loads(line)["sha256"]
