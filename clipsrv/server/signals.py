"""SIGTERM and SIGINT: the first is a wish, another a moment later ends the process."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

logger = logging.getLogger("clipsrv")

#: Seconds after the first signal in which another is the same wish: supervisors signal a process, and then its group.
_ONE_WISH = 1.0


def signalled(hand_on: Callable[[int], None] = lambda number: None) -> asyncio.Event:
    """Set by SIGTERM or SIGINT; another one, a moment later, is handed on and ends the process."""
    loop, stop, first = asyncio.get_running_loop(), asyncio.Event(), list[float]()

    def ask_to_stop(number: int) -> None:
        first.append(loop.time())
        if stop.is_set() and loop.time() - first[0] > _ONE_WISH:
            logger.warning("second signal: leaving at once")
            hand_on(number)
            logging.shutdown()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, number)
    return stop
