"""One tower of the model: a batch in, unit vectors out, checked. Knows nothing of slots, images or text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, Protocol
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import InferenceFailedError, ModelCorruptError, OutOfMemoryError
from clipsrv.runtime.packing import Packed, apart, pack
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


class TextEncoder(Encoder, Protocol):
    """An Encoder of texts. If it `packs`, it computes once what texts of a batch begin with alike, and no padding; each
    may then be filled up with its own last id."""

    packs: bool


class InferenceSession(Protocol):
    """What an encoder needs of onnxruntime's InferenceSession."""

    def get_inputs(self) -> Sequence[Any]: ...

    def get_outputs(self) -> Sequence[Any]: ...

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], /) -> Sequence[Any]: ...


class PartingSession(InferenceSession, Protocol):
    """What an encoder needs of it besides to compute batches in parts."""

    def run_async(
        self,
        outputs: Sequence[str],
        inputs: Mapping[str, NDArray[Any]],
        callback: Callable[[Sequence[Any], object, str], None],
        user_data: object,
        /,
    ) -> None:
        """As `run`, on a thread of the session's own, which then calls `callback` with the results, or [] and why there
        are none, and lets `user_data` go."""


class SessionEncoder:
    """An Encoder over a session of onnxruntime."""

    def __init__(
        self,
        session: InferenceSession,
        tower: TowerSpec,
        dimensions: int,
        *,
        parting: PartingSession | None = None,
        threads: int = 1,
        text_rows: int | None = None,
    ) -> None:
        """`parting`, the same session, which has so many `threads`, computes batches in parts, a thread each; without
        it they share every operator of a batch, as they do those of a single item. With `text_rows` it does so with
        packed texts alone, and where there are so many rows for each thread.

        Raises ModelCorruptError if the graph has other inputs or outputs than the manifest says; beside its input it
        may have those of packed texts.
        """
        inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
        self.packs = inputs == [*Packed._fields] and inputs[0] == tower.input
        if not (self.packs or inputs == [tower.input]) or outputs != [tower.output]:
            raise ModelCorruptError(
                f"The graph takes {inputs} and gives {outputs}; its manifest says [{tower.input!r}] and "
                f"[{tower.output!r}]. Convert the model again."
            )
        self._session: InferenceSession | None = session
        self._parting, self._threads, self._text_rows = parting, threads, text_rows
        self._tower, self._dimensions = tower, dimensions
        self._dtype = np.int64 if "int" in session.get_inputs()[0].type else np.float32

    def embed(self, batch: NDArray[Any]) -> Vectors:
        try:
            features = self._run(batch)
        except MemoryError:
            raise OutOfMemoryError("Not enough memory for this batch.") from None
        except InferenceFailedError:
            raise
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
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
        self._session = self._parting = None  # what computes now holds it until it is done

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        session, parting = self._session, self._parting
        if session is None:
            raise InferenceFailedError("The model is closed.")
        count = min(self._threads, len(batch)) if parting else 1
        if not self.packs:
            parts = np.array_split(batch, 1 if self._text_rows else count)
            return self._features(session, parting, [{self._tower.input: part} for part in parts])
        groups = apart(batch, count, self._text_rows or 1)
        features = self._features(session, parting, [pack(batch[group])._asdict() for group in groups])
        in_order = np.empty_like(features)
        in_order[np.concatenate(groups)] = features
        return in_order

    def _features(
        self, session: InferenceSession, parting: PartingSession | None, parts: Sequence[Mapping[str, NDArray[Any]]]
    ) -> NDArray[np.float32]:
        """Of all parts, one after the other."""
        # Operators that threads share wait for one another; parts do not. One session does both, so that its packed
        # weights are there once: of its own threads each has a part, and computes every operator of it alone.
        *others, own = parts
        outputs, begun = [self._tower.output], list[_Begun]()
        with ExitStack() as stack:
            for part in others:
                assert parting is not None  # without it there is one part
                begun.append(_Begun(parting, outputs, part))
                for _ in range(2):  # Ctrl-C ends a wait, and there is no way on before the run is over
                    stack.callback(begun[-1].wait)
            (features,) = session.run(outputs, own)
        return np.concatenate([*(part.features() for part in begun), features])


class _Begun:
    """A run on a thread of the session's own.

    That thread holds the session until it has called back. Were it the last to do so, it would close the session, which
    waits for this thread to end. So whoever began a run waits until all that it holds has been let go.
    """

    def __init__(self, session: PartingSession, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> None:
        self._results: Sequence[Any] = ()
        self._error = ""
        self._over: SimpleQueue[object] = SimpleQueue()
        token = _Token()
        # Of C, and called by what lets go of the token: nothing of Python's runs before the rest has been let go too.
        self._held = ref(token, self._over.put)
        session.run_async(outputs, inputs, self._done, token)

    def wait(self) -> None:
        """Until the run is over. May be called again after an interruption."""
        if self._held() is not None:
            self._over.get()

    def features(self) -> NDArray[np.float32]:
        """Of a run that is over. Raises RuntimeError with onnxruntime's reason if there are none."""
        if self._error:
            raise RuntimeError(self._error)
        features: NDArray[np.float32]
        (features,) = self._results
        return features

    def _done(self, results: Sequence[Any], _: object, error: str) -> None:
        self._results, self._error = results, error


class _Token:
    """What a run holds for as long as it lasts."""
