"""What a card replays of itself: the session's own vectors, a recording a size, and never the loss of a batch.

The sessions are onnxruntime's on the CPU, which takes the same calls and records nothing; what a card makes of them
scripts/prove-gpu measures.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from clipsrv.errors import DeviceError, InferenceFailedError, OutOfMemoryError
from clipsrv.providers import table
from clipsrv.providers.cpu import CPU
from clipsrv.providers.cuda import CUDA
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime import opening
from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.runtime.opening import open_encoder
from clipsrv.runtime.recorded import LARGEST, RecordedSession
from clipsrv.runtime.session import open_session
from tests.support.model import DIMENSIONS, SIZE, VISION_TOWER, vision_graph

PLAN = DevicePlan("cpu", 1)


class Watched:
    """onnxruntime's session, which tells what was asked of it, and refuses while it is told to."""

    def __init__(self, graph: Path) -> None:
        self.session = open_session(graph, PLAN)
        self.asked: list[tuple[str, str]] = []
        self.threads: set[int] = set()
        self.no_recording: str | None = None
        self.nothing: str | None = None

    def get_inputs(self) -> Sequence[Any]:
        return self.session.get_inputs()

    def get_outputs(self) -> Sequence[Any]:
        return self.session.get_outputs()

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run(self, outputs: Any, inputs: Any, options: ort.RunOptions) -> Any:
        self._note("plain", options)
        if self.nothing:
            raise RuntimeError(self.nothing)
        return self.session.run(outputs, inputs, options)

    def run_with_iobinding(self, binding: Any, options: ort.RunOptions) -> None:
        self._note("recorded", options)
        if refusal := self.no_recording or self.nothing:
            raise RuntimeError(refusal)
        self.session.run_with_iobinding(binding, options)

    def _note(self, way: str, options: ort.RunOptions) -> None:
        self.asked.append((way, options.get_run_config_entry("gpu_graph_id")))
        self.threads.add(threading.get_ident())


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "vision.onnx"
    path.write_bytes(vision_graph().SerializeToString())
    return path


@pytest.fixture
def watched(graph: Path) -> Watched:
    return Watched(graph)


def encoder(watched: Watched) -> SessionEncoder:
    return SessionEncoder(RecordedSession(watched, "cpu", DIMENSIONS), VISION_TOWER, DIMENSIONS)


def pixels(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, 3, SIZE, SIZE), np.float32)


def test_vectors_are_those_of_the_session_itself_whatever_came_before(watched: Watched, graph: Path) -> None:
    ours, plain = encoder(watched), SessionEncoder(open_session(graph, PLAN), VISION_TOWER, DIMENSIONS)
    for size, seed in ((1, 0), (3, 1), (1, 2), (LARGEST, 3), (3, 4), (LARGEST + 1, 5), (1, 0)):
        batch = pixels(size, seed)
        np.testing.assert_array_equal(ours.embed(batch), plain.embed(batch))


def test_each_size_has_a_recording_of_its_own_and_large_batches_have_none(watched: Watched) -> None:
    ours = encoder(watched)
    for size in (1, 2, 1, LARGEST, LARGEST + 1):
        ours.embed(pixels(size))
    recorded = [("recorded", str(size)) for size in (1, 2, 1, LARGEST)]
    assert watched.asked == [*recorded, ("plain", "-1")]


def test_vectors_of_one_batch_stay_when_the_next_is_computed(watched: Watched) -> None:
    session = RecordedSession(watched, "cpu", DIMENSIONS)
    (first,) = session.run([VISION_TOWER.output], {VISION_TOWER.input: pixels(2)})
    before = first.copy()
    session.run([VISION_TOWER.output], {VISION_TOWER.input: pixels(2, seed=1)})
    np.testing.assert_array_equal(first, before)


def test_whoever_asks_one_thread_records_and_replays(watched: Watched) -> None:
    ours, batch = encoder(watched), pixels(1)
    callers = [threading.Thread(target=ours.embed, args=(batch,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(watched.threads) == 1
    assert len(watched.asked) == 4


def test_a_size_that_cannot_be_recorded_is_computed_as_it_is_and_not_tried_again(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.no_recording = "CUDA failure 900: operation not permitted when stream is capturing"
    ours = encoder(watched)
    first, second = ours.embed(pixels(2)), ours.embed(pixels(2))
    np.testing.assert_array_equal(first, second)
    assert [way for way, _ in watched.asked] == ["recorded", "plain", "plain"]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "Batches of 2 are launched operator by operator"
    ]


def test_want_of_memory_while_recording_is_told_as_such_and_recording_tried_again(watched: Watched) -> None:
    ours, watched.nothing = encoder(watched), "CUDA out of memory"
    with pytest.raises(OutOfMemoryError):
        ours.embed(pixels(2))
    watched.nothing, watched.asked = None, []
    ours.embed(pixels(2))
    assert watched.asked == [("recorded", "2")]


def test_what_fails_in_a_replay_is_an_error_of_that_batch_alone(watched: Watched) -> None:
    ours = encoder(watched)
    expected, watched.nothing = ours.embed(pixels(2)), "CUDA failure 700: an illegal memory access was encountered"
    with pytest.raises(InferenceFailedError):
        ours.embed(pixels(2))
    watched.nothing = None
    np.testing.assert_array_equal(ours.embed(pixels(2)), expected)


def test_closing_ends_the_thread(watched: Watched) -> None:
    ours = encoder(watched)
    ours.embed(pixels(1))
    (thread,) = (one for one in threading.enumerate() if one.ident in watched.threads)
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_tower_of_images_records_where_the_provider_and_the_graph_can(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    refusals: dict[bool, str] = {}

    def opened(graph: Path, plan: DevicePlan, *, recording: bool = False) -> ort.InferenceSession:
        asked.append(recording)
        if recording in refusals:
            raise DeviceError(refusals[recording])
        return open_session(graph, plan)

    monkeypatch.setitem(table._BY_NAME, "cpu", replace(CPU, recording={"as": "cuda"}))
    monkeypatch.setattr(opening, "open_session", opened)
    for tower, expected in (
        (VISION_TOWER, [True]),
        (replace(VISION_TOWER, tokenizer="tokenizer.json"), [False]),
        (VISION_TOWER, [True, False]),
    ):
        asked.clear()
        made = open_encoder(graph, tower, DIMENSIONS, PLAN)
        assert made.embed(pixels(2)).shape == (2, DIMENSIONS)
        assert asked == expected
        refusals[True] = "it has nodes elsewhere"


def test_only_cuda_records() -> None:
    assert [row.device for row in table.PROVIDERS if row.recording] == [CUDA.device]
