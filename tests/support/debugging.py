"""asyncio's debug mode for tests: who keeps the loop is measured in CPU time, which no busy machine makes longer.

The mode itself raises on calls from the wrong thread, and warns of coroutines and errors that nobody waited for; its
own warnings of slow callbacks go by the clock, and are switched off.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Whether the interpreter was started with PYTHONASYNCIODEBUG.
DEBUGGING = bool(os.environ.get("PYTHONASYNCIODEBUG"))
#: Seconds of the loop's own CPU time that one callback may take: several times what any takes, the tests' own included.
MOST = 1.0


@contextmanager
def no_callback_keeps_the_loop(most: float = MOST) -> Iterator[None]:
    """Fails if a callback of any loop took more than `most` seconds of CPU time."""
    handle, slow = asyncio.Handle, list[str]()
    run = handle._run  # the one place where every callback passes

    def timed(self: asyncio.Handle) -> None:
        began = time.thread_time()
        try:
            run(self)
        finally:
            if (took := time.thread_time() - began) > most:
                slow.append(f"{took:.2f} s of CPU time in {self!r}")

    setattr(handle, "_run", timed)  # noqa: B010 - mypy takes methods for constants
    try:
        yield
    finally:
        setattr(handle, "_run", run)  # noqa: B010
    assert not slow, "the loop was kept: " + "; ".join(slow)
