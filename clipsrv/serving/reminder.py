"""When to say again what happens often: at once, and from then on once an hour, with how often it was.

A policy of its own: knows nothing of logs, and no clock but the one it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Reminder:
    """Times in seconds."""

    def __init__(self, every: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every, clock
        self._last: float | None = None
        self._unsaid = 0

    def count(self) -> int:
        """Counts one, and gives how many are to be told of now: 0 while it is not yet time."""
        self._unsaid += 1
        now = self._clock()
        if self._last is not None and now - self._last < self._every:
            return 0
        self._last, told, self._unsaid = now, self._unsaid, 0
        return told
