"""How long and how often what lies elsewhere is asked for, and when it is given up. Knows neither HTTP nor stores."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from clipsrv.bulk.errors import FetchError, GivenUpError
from clipsrv.bulk.pause import LOOK, pause

Result = TypeVar("Result")

#: Seconds before the second try, doubled for each one after it.
_FIRST_DELAY = 0.25
_TRIES = 5
#: Seconds that fetches have to end by themselves once the job is asked to stop.
_GRACE = 3.0


class Patience:
    """Tries again while that may help, within `seconds` for all tries; `stop` says that the job is to end."""

    def __init__(self, seconds: float, stop: Callable[[], bool]) -> None:
        self._seconds, self._stop = seconds, stop
        self._stopped: float | None = None

    def insist(self, attempt: Callable[[float], Result]) -> Result:
        """What `attempt`, given the seconds that are left, brings in the end. Raises FetchError, GivenUpError."""
        end = time.monotonic() + self._seconds
        for number in range(1, _TRIES + 1):
            try:
                return attempt(end - time.monotonic())
            except FetchError as error:
                delay = max(_FIRST_DELAY * 2 ** (number - 1) * random.uniform(0.5, 1.0), error.after)
                last = number == _TRIES or time.monotonic() + delay >= end
                if last and error.again and number > 1:
                    raise FetchError(error.code, f"{error.message} It was tried {number} times.") from None
                if last or not error.again:
                    raise
            pause(delay, self.check)
        raise AssertionError("the last try returns or raises")

    def result(self, future: Future[Result], seconds: float) -> Result:
        """What `future` brings, cancelled after `seconds`: then FetchError, and GivenUpError if the job is to end."""
        end = time.monotonic() + seconds
        try:
            while not wait((future,), min(LOOK, max(0.0, end - time.monotonic()))).done:
                self.check()
                if time.monotonic() >= end:
                    raise FetchError("fetch_failed", f"It did not come within {self._seconds:g} s.", again=True)
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def check(self) -> None:
        """Raises GivenUpError if the job was asked to end some seconds ago."""
        if self._stopped is None and self._stop():
            self._stopped = time.monotonic()
        if self._stopped is not None and time.monotonic() - self._stopped > _GRACE:
            raise GivenUpError("What was on its way was given up: the job was asked to end.")
