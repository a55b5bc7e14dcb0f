"""A budget of pixels shared by decoding threads, so that many large images at once cannot exhaust memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class PixelBudget:
    """Bounds the pixels that decoding threads hold together; a thread waits until its image fits."""

    def __init__(self, capacity: int) -> None:
        self._free, self._capacity = capacity, capacity
        self._changed = threading.Condition()

    @property
    def in_use(self) -> int:
        """Pixels held now."""
        return self._capacity - self._free

    def hold(self, pixels: int) -> AbstractContextManager[None]:
        """A context holding `pixels` of the budget, or all of it for an image larger than that."""
        return self._hold(min(pixels, self._capacity))

    @contextmanager
    def _hold(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()
