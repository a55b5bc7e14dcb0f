"""One tower of the model: a batch in, unit vectors out, checked. Knows nothing of slots, images or text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import InferenceFailedError, ModelCorruptError, OutOfMemoryError
from clipsrv.runtime.vectors import Vectors, unit
from clipsrv.specs import TowerSpec

#: Of onnxruntime, CUDA, cuBLAS and cuDNN.
_OUT_OF_MEMORY = (
    *("bad_alloc", "bad alloc", "allocate memory", "out of memory", "memory allocation"),
    *("out_of_memory", "memoryallocation", "alloc_failed"),
)


class Encoder(Protocol):
    """What the rooms above need of a tower. Not safe for use by two threads at once on every provider."""

    def embed(self, batch: NDArray[Any]) -> Vectors:
        """Unit vectors (n, dimensions), float32, of a batch as TowerSpec describes its input.

        Raises OutOfMemoryError, or InferenceFailedError if the run fails or gives a row without a direction.
        """

    def warm_up(self, shape: tuple[int, ...], batch_sizes: Iterable[int], fill: int | None = None) -> None:
        """Embeds every batch size once, of inputs of `shape`: proves the tower, fills its caches.

        Each input holds `fill`, or without one values from -1 to 1: zeros would be embedded as zeros by a model
        without offsets. Raises as `embed`.
        """

    def close(self) -> None:
        """Gives memory and threads back; embedding is then an InferenceFailedError. Closing twice is closing once."""


class InferenceSession(Protocol):
    """What an encoder needs of onnxruntime's InferenceSession."""

    def get_inputs(self) -> Sequence[Any]: ...

    def get_outputs(self) -> Sequence[Any]: ...

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], /) -> Sequence[Any]: ...


class SessionEncoder:
    """An Encoder over sessions of onnxruntime."""

    def __init__(
        self,
        session: InferenceSession,
        tower: TowerSpec,
        dimensions: int,
        *,
        single: InferenceSession | None = None,
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
        self._session: InferenceSession | None = session
        self._single, self._threads = single, threads
        self._tower, self._dimensions = tower, dimensions
        self._dtype = np.int64 if "int" in session.get_inputs()[0].type else np.float32
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference-part")

    def embed(self, batch: NDArray[Any]) -> Vectors:
        try:
            features = self._run(batch)
        except MemoryError:
            raise OutOfMemoryError("Not enough memory for this batch.") from None
        except InferenceFailedError:
            raise
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            if self._session is None:  # closed while this ran
                raise _closed() from None
            if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                raise OutOfMemoryError("Not enough memory for this batch.") from error
            raise InferenceFailedError("The model could not compute this batch.") from error
        if features.shape != (len(batch), self._dimensions):
            raise InferenceFailedError(f"The model gave shape {features.shape} for a batch of {len(batch)}.")
        return unit(features)

    def warm_up(self, shape: tuple[int, ...], batch_sizes: Iterable[int], fill: int | None = None) -> None:
        one = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape) if fill is None else np.full(shape, fill)
        for size in batch_sizes:
            self.embed(np.repeat(one.astype(self._dtype)[None], size, axis=0))

    def close(self) -> None:
        # What computes now holds its session until it is done.
        self._session = self._single = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        session, single = self._session, self._single
        if session is None:
            raise _closed()
        if single is None or len(batch) <= 1:
            return self._compute(session, batch)
        parts = np.array_split(batch, min(self._threads, len(batch)))
        return np.concatenate(list(self._pool.map(partial(self._compute, single), parts)))

    def _compute(self, session: InferenceSession, batch: NDArray[Any]) -> NDArray[np.float32]:
        features: NDArray[np.float32]
        (features,) = session.run([self._tower.output], {self._tower.input: batch})
        return features


def _closed() -> InferenceFailedError:
    return InferenceFailedError("The model is closed.")
