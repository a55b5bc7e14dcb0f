"""One tower of the model: a batch in, raw features out, checked. Knows nothing of queues, images or text."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from clipsrv.errors import InferenceFailedError, ModelCorruptError, OutOfMemoryError
from clipsrv.manifest import TowerSpec

_OUT_OF_MEMORY = ("bad_alloc", "bad alloc", "allocate memory", "out of memory", "memory allocation")


class Encoder:
    """Runs one tower. Not safe for use by two threads at once on every provider: give it one thread."""

    def __init__(
        self,
        session: ort.InferenceSession,
        tower: TowerSpec,
        dimensions: int,
        *,
        single: ort.InferenceSession | None = None,
        threads: int = 1,
    ) -> None:
        """`single`, a session of one thread, computes batches in parts, on `threads` threads at once; without one, the
        threads of `session` share every operator.

        Raises ModelCorruptError if the graph has other inputs or outputs than the manifest says.
        """
        inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
        if inputs != [tower.input] or outputs != [tower.output]:
            raise ModelCorruptError(
                f"The graph takes {inputs} and gives {outputs}; its manifest says [{tower.input!r}] and "
                f"[{tower.output!r}]. Convert the model again."
            )
        self._session, self._tower, self._dimensions = session, tower, dimensions
        self._single, self._threads = single, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference-part")

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return str(self._session.get_providers()[0])

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Features (n, dimensions), float32, not normalised, of a batch as TowerSpec describes its input.

        Raises OutOfMemoryError, or InferenceFailedError if the run fails or a value of it is not finite.
        """
        try:
            features = self._run(batch)
        except MemoryError:
            raise OutOfMemoryError("Not enough memory for this batch.") from None
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                raise OutOfMemoryError("Not enough memory for this batch.") from error
            raise InferenceFailedError("The model could not compute this batch.") from error
        if features.shape != (len(batch), self._dimensions):
            raise InferenceFailedError(f"The model gave shape {features.shape} for a batch of {len(batch)}.")
        if not np.isfinite(features).all():
            raise InferenceFailedError("The model gave values that are not finite.")
        return np.asarray(features, np.float32)

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if self._single is None or len(batch) == 1:
            return self._compute(self._session, batch)
        parts = np.array_split(batch, min(self._threads, len(batch)))
        return np.concatenate(list(self._pool.map(partial(self._compute, self._single), parts)))

    def _compute(self, session: ort.InferenceSession, batch: NDArray[Any]) -> NDArray[np.float32]:
        features: NDArray[np.float32]
        (features,) = session.run([self._tower.output], {self._tower.input: batch})
        return features

    def warm_up(self, shape: tuple[int, ...], batch_sizes: Iterable[int], fill: int = 0) -> None:
        """Runs every batch size once on inputs of `shape` filled with `fill`: proves the session, fills its caches."""
        dtype = np.int64 if "int" in self._session.get_inputs()[0].type else np.float32
        for size in batch_sizes:
            self.encode(np.full((size, *shape), fill, dtype))
