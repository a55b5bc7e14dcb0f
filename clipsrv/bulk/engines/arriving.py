"""What comes from elsewhere, some time or never: whoever waits for it hears a signal all the same.

Knows nothing of who sends it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from clipsrv.bulk.pause import LOOK

Thing = TypeVar("Thing")


def arriving(
    things: Iterator[Thing], stop: Callable[[], bool], silent: Callable[[float], None], every: float = 60.0
) -> Iterator[Thing]:
    """`things`, which another thread takes, two ahead at most; fewer of them if `stop` ends it. `silent` is told the
    seconds since the last one came, each `every` seconds. Raises what `things` raises."""
    arrived: queue.Queue[Future[Thing]] = queue.Queue(1)
    threading.Thread(target=_take, args=(things, arrived), name="arriving", daemon=True).start()
    since = said = time.monotonic()
    while not stop():
        try:
            came = arrived.get(timeout=LOOK)
        except queue.Empty:
            if (now := time.monotonic()) - said >= every:
                silent(now - since)
                said = now
            continue
        if came.cancelled():
            return
        yield came.result()
        since = said = time.monotonic()


def _take(things: Iterator[Thing], arrived: queue.Queue[Future[Thing]]) -> None:
    """Puts a future of each, and at the end one that is cancelled."""
    try:
        for thing in things:
            came: Future[Thing] = Future()
            came.set_result(thing)
            arrived.put(came)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is for who waits
        failed: Future[Thing] = Future()
        failed.set_exception(error)
        arrived.put(failed)
    else:
        end: Future[Thing] = Future()
        end.cancel()
        arrived.put(end)
