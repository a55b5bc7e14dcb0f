"""How a process is told which worker it is: an environment variable that names the sockets it inherits."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

#: No setting, and none of CLIPSRV_*: people do not set it.
VARIABLE = "_CLIPSRV_WORKER"


class Place(NamedTuple):
    """`number` counts from 1. The worker takes connections `at_once`, before its models are loaded, if nobody else
    would say that the server is starting. `channel` and `doors` are descriptors, of the supervisor's socket and of
    those that listen."""

    number: int
    at_once: bool
    channel: int
    doors: tuple[int, ...]

    @classmethod
    def taken(cls) -> Self | None:
        """That of this process, None if it is no worker. Asked once: children of a worker are none."""
        given = os.environ.pop(VARIABLE, None)
        if given is None:
            return None
        number, at_once, channel, *doors = map(int, given.split())
        return cls(number, bool(at_once), channel, tuple(doors))

    def environment(self) -> dict[str, str]:
        """That of this process, with what makes a child of it take this place."""
        return {**os.environ, VARIABLE: " ".join(map(str, (self.number, int(self.at_once), self.channel, *self.doors)))}
