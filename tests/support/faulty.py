"""Encoders that fail in one way each: small plain stand-ins for a model, given to the Embedder by its loader."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import OutOfMemoryError
from tests.support.serving import PoolingEncoder


class SlowEncoder(PoolingEncoder):
    """Takes `seconds` for every batch, and remembers the sizes of those it saw."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.sizes = seconds, list[int]()

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        time.sleep(self.seconds)
        return super().features(batch)


class SmallMemoryEncoder(SlowEncoder):
    """Runs out of memory for more than `room` images at once."""

    def __init__(self, room: int) -> None:
        super().__init__(0)
        self.room = room

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        features = super().features(batch)
        if len(batch) > self.room:
            raise OutOfMemoryError("Not enough memory for this batch.")
        return features


class PoisonedEncoder(PoolingEncoder):
    """Fails in `how` for a batch with an image as dark as can be: raise, nan, zeros, panic (not an Exception)."""

    def __init__(self, how: str) -> None:
        self.how = how

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        features = super().features(batch)
        dark = batch.max(axis=(1, 2, 3)) <= batch.min()
        if not dark.any() or not np.allclose(batch[dark].max(), -2):
            return features
        if self.how == "raise":
            raise RuntimeError("native code failed")
        if self.how == "panic":
            raise Panic
        features[dark] = np.nan if self.how == "nan" else 0
        return features


class Panic(BaseException):
    """What Rust code raises through Python: no `except Exception` sees it."""


class BrokenEncoder(PoolingEncoder):
    """Fails every batch while `broken`."""

    def __init__(self) -> None:
        self.broken = False

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if self.broken:
            raise RuntimeError("the device is gone")
        return super().features(batch)


class HangingEncoder(PoolingEncoder):
    """Waits inside a batch until `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.go_on.wait(30)
        return super().features(batch)
