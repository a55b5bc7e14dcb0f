"""Encoders around a real one that can be watched and held up, so that tests need not guess at times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from clipsrv.models.model import Model
from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.vectors import Vectors


class GatedEncoder:
    """Computes when the gate is open, and keeps the sizes of the batches it was given."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    def embed(self, batch: NDArray[Any]) -> Vectors:
        self.sizes.append(len(batch))
        self.entered.set()
        self.gate.wait(60)
        return self._encoder.embed(batch)

    def shut(self) -> None:
        """From now on a batch waits; `entered` says that one does."""
        self.sizes.clear()
        self.entered.clear()
        self.gate.clear()

    def warm_up(self, *arguments: Any, **options: Any) -> None:
        self._encoder.warm_up(*arguments, **options)

    def close(self) -> None:
        self._encoder.close()


def gated(model: Model) -> tuple[GatedEncoder, Callable[[], Model]]:
    """The gate, and what loads the model behind it."""
    gate = GatedEncoder(model.image_encoder)
    return gate, lambda: replace(model, image_encoder=gate)
