"""The small model's vision tower with one fault each, planted in its session: the encoder around it is the real one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.runtime.vectors import Vectors
from tests.support.model import DIMENSIONS, SPEC, VISION_TOWER, session, vision_graph

_BLACK = (-np.array(SPEC.image_mean) / np.array(SPEC.image_std)).astype(np.float32)


class FaultyEncoder:
    """The tower itself, and the sizes of the batches it was given. A fault overrides `features`; warming up meets none.

    `entered` is set when a batch comes.
    """

    def __init__(self) -> None:
        self.sizes: deque[int] = deque(maxlen=10_000)
        self.entered = threading.Event()
        self._sound = SessionEncoder(session(vision_graph), VISION_TOWER, DIMENSIONS)
        self._encoder = SessionEncoder(_Faulty(self), VISION_TOWER, DIMENSIONS)

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """What the session gives for a batch, before anything checks it."""
        (features,) = session(vision_graph).run(None, {VISION_TOWER.input: batch})
        return np.array(features)

    def embed(self, batch: NDArray[Any]) -> Vectors:
        self.sizes.append(len(batch))
        self.entered.set()
        return self._encoder.embed(batch)

    def warm_up(self, shape: tuple[int, ...], batch_sizes: Iterable[int], fill: int | None = None) -> None:
        self._sound.warm_up(shape, batch_sizes, fill)

    def close(self) -> None:
        self._encoder.close()


class _Faulty:
    """A session of the tower whose outputs are those of `encoder.features`."""

    def __init__(self, encoder: FaultyEncoder) -> None:
        self._encoder = encoder

    def get_inputs(self) -> Sequence[Any]:
        return session(vision_graph).get_inputs()

    def get_outputs(self) -> Sequence[Any]:
        return session(vision_graph).get_outputs()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        return [self._encoder.features(inputs[VISION_TOWER.input])]


class SlowEncoder(FaultyEncoder):
    """Takes `seconds` longer for every batch."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        return super().features(batch)


class SmallMemoryEncoder(FaultyEncoder):
    """Runs out of memory for more than `room` images at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if len(batch) > self.room:
            raise MemoryError
        return super().features(batch)


class PoisonedEncoder(FaultyEncoder):
    """Fails in `how` for a batch with a black image: raise, nan, zeros, panic (not an Exception)."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        features = super().features(batch)
        dark = np.isclose(batch, _BLACK[:, None, None], atol=1e-3).all(axis=(1, 2, 3))
        if not dark.any():
            return features
        if self.how == "raise":
            raise RuntimeError("native code failed")
        if self.how == "panic":
            raise Panic
        features[dark] = np.nan if self.how == "nan" else 0
        return features


class Panic(BaseException):
    """What Rust code raises through Python: no `except Exception` sees it."""


class BrokenEncoder(FaultyEncoder):
    """Fails every batch while `broken`."""

    broken = False

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if self.broken:
            raise RuntimeError("the device is gone")
        return super().features(batch)


class HangingEncoder(FaultyEncoder):
    """Waits inside a batch until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.go_on.set()

    def shut(self) -> None:
        """From now on a batch waits; `entered` says that one does, and `sizes` counts anew."""
        self.sizes.clear()
        self.entered.clear()
        self.go_on.clear()

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.go_on.wait(60)
        return super().features(batch)


class SteppedEncoder(FaultyEncoder):
    """Computes as many batches as it was allowed."""

    def __init__(self) -> None:
        super().__init__()
        self._allowed = threading.Semaphore(0)

    def allow(self, batches: int) -> None:
        """So many batches more go through; the next one waits."""
        self._allowed.release(batches)

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._allowed.acquire(timeout=60)
        return super().features(batch)
