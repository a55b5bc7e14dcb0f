"""How long a job waits for what takes its rows while that is away. Knows neither databases nor servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from clipsrv.bulk.errors import AwayError, GivenUpError, OutputError
from clipsrv.bulk.pause import pause

Result = TypeVar("Result")

_FIRST_DELAY, _LONGEST_DELAY = 0.25, 5.0


class Outage:
    """Waits `patience` seconds for each statement; `say` is told of every wait, `stop` says that the job is to end."""

    def __init__(self, patience: float, say: Callable[[str], None], stop: Callable[[], bool]) -> None:
        self._patience, self._say, self._stop = patience, say, stop

    def outlast(self, what: str, attempt: Callable[[], Result]) -> Result:
        """What `attempt` gives, again while it raises AwayError.

        Raises OutputError if `what` stays away, and GivenUpError if the job is to end meanwhile.
        """
        ends, delay = time.monotonic() + self._patience, _FIRST_DELAY
        while True:
            try:
                return attempt()
            except AwayError as error:
                reason = str(error)
            if time.monotonic() + delay > ends:
                raise OutputError(f"{what} stayed away: {reason}.")
            self._say(f"{what} is away ({reason}); trying again in {delay:g} s.")
            pause(delay, lambda: self._check(what))
            delay = min(2 * delay, _LONGEST_DELAY)

    def _check(self, what: str) -> None:
        if self._stop():
            raise GivenUpError(f"{what} is away, and the job was asked to end: the same command goes on from here.")
