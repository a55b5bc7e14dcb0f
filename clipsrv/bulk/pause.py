"""Sleep that a signal ends. Knows nothing of what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds between two looks whether the job is to end.
LOOK = 0.25


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Sleeps so long, unless `check`, which is called again and again, raises."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(LOOK, left))
