"""The event loop's rounds, kept short: whoever asks for little does not wait while everybody's bytes are read.

Knows nothing of connections. Where there is no epoll the loop is asyncio's usual one.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import selectors
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

#: Files that a round of the loop serves. An answer takes up to three rounds, and with 46 callers who send all they
#: can, one that serves all of them takes 20 ms of a core; the kernel gives the others first in the next.
_FILES = 8


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, in such a loop."""
    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(work)


def event_loop() -> asyncio.AbstractEventLoop:
    """A new loop whose rounds serve a few files each."""
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(FewAtOnce())


async def each_had_its_turn(files: int) -> None:
    """Returns once the loop has served as many rounds as `files` that are all ready take for one turn each."""
    for _ in range(files // _FILES + 2):  # who waits for a round goes on before the files it found
        await asyncio.sleep(0)


if sys.platform == "linux":

    class FewAtOnce(selectors.EpollSelector):
        """epoll that reports at most `files` files at a time, those first that have waited longest (epoll_wait(2))."""

        def __init__(self, files: int = _FILES) -> None:
            super().__init__()
            self._files = files
            self._epoll = select.epoll.fromfd(os.dup(self.fileno()))

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Keys and events of the files that are ready within `timeout` seconds, None being for ever."""
            # Milliseconds rounded up: a timer is never early, which would have the loop spin until it is due.
            seconds = -1 if timeout is None else math.ceil(max(timeout, 0) * 1e3) * 1e-3
            found, keys = [], self.get_map()
            for number, events in self._epoll.poll(seconds, self._files):
                wanted = selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0
                wanted |= selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
                key = keys[number]
                found.append((key, wanted & key.events))
            return found

        def close(self) -> None:
            """Gives both descriptors back."""
            self._epoll.close()
            super().close()
