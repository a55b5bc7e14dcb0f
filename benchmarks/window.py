"""Which answers of a load count: after a warm-up, and in whole bursts. Knows nothing of how they came."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

#: A run is given up after so many seconds or errors.
_LIMIT, _MOST_ERRORS = 300.0, 1000
#: A server that computes batches answers in bursts. A window from one burst's first answer to another's holds whole
#: bursts; an answer is taken for the first if nothing came for this long. Without bursts any answer will do.
_BURST_GAP, _PATIENCE = 0.02, 1.0


@dataclass
class Outcome:
    """What one run saw within its window of `seconds`: latencies in seconds, answers that were not 200 as `errors`."""

    seconds: float
    latencies: list[float]
    errors: int
    generator_cpu: float
    first_error: str = ""


class Window:
    """Decides which answers count: first a warm-up of seconds and at least one answer a caller, then the window.

    The window lasts `seconds`, or longer until `least` answers came, and is rounded up to whole bursts of answers.
    `at_edge` is called at its beginning and at its end.
    """

    def __init__(
        self,
        callers: int,
        warm_up: float,
        seconds: float,
        at_edge: Callable[[], None] = lambda: None,
        *,
        least: int = 3,
        generator_cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._callers, self._warm_up, self._seconds = callers, warm_up, seconds
        self._at_edge, self._least, self._generator_cpu = at_edge, least, generator_cpu
        self._created = self._last = time.monotonic()
        self._begun: float | None = None
        self._warm = 0
        self._cpu = 0.0
        self.outcome = Outcome(0.0, [], 0, 0.0)

    def add(self, latency: float, error: str | None = None, came: float | None = None) -> bool:
        """Takes an answer or its `error`, which `came` just now or at that time; True if it was the last one wanted."""
        now = time.monotonic() if came is None else came
        gap, self._last = now - self._last, now
        if self._begun is None:
            self._warm += 1
            over = now - self._created - self._warm_up
            if self._warm >= self._callers and over >= 0 and (gap >= _BURST_GAP or over >= _PATIENCE):
                self._at_edge()
                gc.disable()
                self._cpu, self._begun = self._generator_cpu(), now
            return False
        outcome = self.outcome
        if error is None:
            outcome.latencies.append(latency)
        else:
            outcome.errors, outcome.first_error = outcome.errors + 1, outcome.first_error or error
        outcome.seconds = now - self._begun
        whole = gap >= _BURST_GAP or outcome.seconds >= self._seconds + _PATIENCE
        answers = len(outcome.latencies) + outcome.errors
        enough = outcome.seconds >= self._seconds and answers >= self._least and whole
        if not enough and outcome.seconds <= _LIMIT and outcome.errors <= _MOST_ERRORS:
            return False
        outcome.generator_cpu = self._generator_cpu() - self._cpu
        gc.enable()
        self._at_edge()
        return True
