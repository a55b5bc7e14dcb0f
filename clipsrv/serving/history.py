"""What became of loading each model: which version runs, which one failed and need not be tried again at once.

A policy only: of no I/O, and no clock but the one it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from clipsrv.errors import ClipsrvError, ModelTooLargeError

#: Seconds after which what failed is tried again although nothing has changed: memory may be free, a disk be back.
TRY_AGAIN_AFTER = 10.0


class History:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loaded: dict[str, Hashable | None] = {}
        self._failed: dict[str, tuple[ClipsrvError, Hashable | None, float]] = {}

    def loaded(self, name: str, version: Hashable | None) -> None:
        self._loaded[name] = version
        self._failed.pop(name, None)

    def failed(self, name: str, version: Hashable | None, error: ClipsrvError) -> None:
        self._failed[name] = (_copy(error), version, self._clock())

    def version(self, name: str) -> Hashable | None:
        """That which was loaded last."""
        return self._loaded.get(name)

    def failure(self, name: str) -> ClipsrvError | None:
        """Why the last try failed, if it did."""
        return _copy(self._failed[name][0]) if name in self._failed else None

    def refusal(self, name: str, version: Hashable | None) -> ClipsrvError | None:
        """Why not to try now: this version failed a moment ago."""
        if name not in self._failed:
            return None
        error, failed, when = self._failed[name]
        return _copy(error) if failed == version and self._clock() - when < TRY_AGAIN_AFTER else None

    def is_stale(self, name: str, version: Hashable) -> bool:
        """Whether to load `version` in the place of another: not if it failed, unless for want of memory only."""
        if name not in self._loaded or version == self._loaded[name]:
            return False
        error, failed, _ = self._failed.get(name, (None, None, 0.0))
        return version != failed or (isinstance(error, ModelTooLargeError) and self.refusal(name, version) is None)


def _copy(error: ClipsrvError) -> ClipsrvError:
    """Without the frames it came through, for each who is told: they would hold one another's."""
    return type(error)(error.message, **error.details)
