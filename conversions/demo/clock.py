"""What a training has spent, over as many runs as it took."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """Seconds a training took so far, by the clock on the wall and of all processors together."""

    wall: float = 0.0
    cpu: float = 0.0


class Clock:
    """Goes on counting from `before`."""

    def __init__(self, before: Spent) -> None:
        self._wall = time.monotonic() - before.wall
        self._cpu = time.process_time() - before.cpu

    def read(self) -> Spent:
        return Spent(time.monotonic() - self._wall, time.process_time() - self._cpu)
