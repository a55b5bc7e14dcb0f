"""A session on a card that replays what it recorded: all launches of a batch of one size, as one (CUDA graphs).

To start a hundred operators one by one takes a processor longer than a small batch's arithmetic takes a card. Knows
nothing of towers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from clipsrv.runtime.session import first_line

logger = logging.getLogger(__name__)

#: Batches above are computed launch by launch: their arithmetic takes longer than that (docs/gpu.md).
LARGEST = 16
#: Of gpu_graph_id: neither record nor replay.
_NOT_RECORDED = -1


@dataclass(frozen=True)
class _Places:
    """Where input and output of one size lie: a recording has their addresses."""

    taken: ort.OrtValue
    given: ort.OrtValue
    binding: ort.IOBinding


class RecordedSession:
    """Computes as the session does, from one input and to one output of `dimensions` float32 a row, all but the first
    axis of which are the same each time. Safe for use by several threads, one after the other."""

    def __init__(self, session: ort.InferenceSession, device: str, dimensions: int) -> None:
        """`session` was opened with the provider's `recording` options; `device` is onnxruntime's word for where it
        computes."""
        self._session, self._device, self._dimensions = session, device, dimensions
        self._places: dict[int, _Places] = {}
        self._never: set[int] = set()  # sizes that could not be recorded
        # A recording is the thread's that made it (onnxruntime's PerThreadContext).
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorded")

    def get_inputs(self) -> Sequence[Any]:
        return list(self._session.get_inputs())

    def get_outputs(self) -> Sequence[Any]:
        return list(self._session.get_outputs())

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]], /) -> Sequence[Any]:
        return self._thread.submit(self._run, outputs, inputs).result()

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[Any]:
        ((name, batch),) = inputs.items()
        size = len(batch)
        if size > LARGEST or size in self._never:
            return self._plain(outputs, inputs)
        if known := self._places.get(size):
            return [self._replay(known, batch)]
        try:
            places = self._place(name, outputs[0], batch)
            features = self._replay(places, batch)  # onnxruntime computes it as it is first, then records
        except Exception as error:  # noqa: BLE001 - onnxruntime raises a dozen unrelated classes
            results = self._plain(outputs, inputs)  # for want of memory this fails too, in the words that are known
            self._never.add(size)
            reason = first_line(error)
            logger.warning(
                "Batches of %d are launched operator by operator: they cannot be recorded (%s)", size, reason
            )
            return results
        self._places[size] = places
        return [features]

    def _place(self, input: str, output: str, batch: NDArray[Any]) -> _Places:
        made = ort.OrtValue.ortvalue_from_shape_and_type
        taken = made(batch.shape, batch.dtype, self._device, 0)
        given = made([len(batch), self._dimensions], np.float32, self._device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(input, taken)
        binding.bind_ortvalue_output(output, given)
        return _Places(taken, given, binding)

    def _replay(self, places: _Places, batch: NDArray[Any]) -> NDArray[np.float32]:
        places.taken.update_inplace(batch)
        self._session.run_with_iobinding(places.binding, _graph(len(batch)))
        features: NDArray[np.float32] = places.given.numpy()
        return features.copy()  # of what the next run overwrites

    def _plain(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[Any]:
        results: Sequence[Any] = self._session.run(outputs, inputs, _graph(_NOT_RECORDED))
        return results


def _graph(number: int) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
