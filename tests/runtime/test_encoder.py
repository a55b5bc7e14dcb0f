"""One tower: a batch in, unit vectors out; what the runtime raises becomes one of two errors."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from numpy.typing import NDArray

from clipsrv.errors import InferenceFailedError, ModelCorruptError, OutOfMemoryError
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.encoder import SessionEncoder
from clipsrv.runtime.session import open_session
from clipsrv.settings import ModelSettings
from clipsrv.specs import TowerSpec
from tests.support.model import (
    DIMENSIONS,
    SIZE,
    TEXT_TOWER,
    VISION_TOWER,
    packed_text_graph,
    session,
    text_graph,
    write_model,
)

TOWER = TowerSpec("x", "y", {"fp32": "a.onnx"})


class Named:
    def __init__(self, name: str) -> None:
        self.name, self.type = name, "tensor(float)"


class Session:
    """Gives or raises what it is told."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def get_inputs(self) -> list[Named]:
        return [Named("x")]

    def get_outputs(self) -> list[Named]:
        return [Named("y")]

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        if isinstance(self._result, BaseException):
            raise self._result
        return [self._result]

    def run_async(
        self, outputs: Sequence[str], inputs: Mapping[str, Any], callback: Callable[..., None], user_data: object
    ) -> None:
        """As onnxruntime's: what goes wrong is told in words, and `user_data` is let go at the end."""

        def outcome() -> tuple[list[Any], str]:
            try:
                return self.run(outputs, inputs), ""
            except Exception as error:  # noqa: BLE001 - as wide as onnxruntime's
                return [], f"{type(error).__name__}: {error}"

        lent = [user_data]  # no frame may keep it that a traceback keeps

        def run() -> None:
            results, error = outcome()
            callback(results, lent.pop(), error)

        threading.Thread(target=run).start()


def embed(result: Any) -> np.ndarray:
    return SessionEncoder(Session(result), TOWER, 4).embed(np.zeros((2, 3), np.float32))


def test_vectors_of_a_batch_are_those_of_its_items(model: Model) -> None:
    pixels = np.random.default_rng(0).standard_normal((5, 3, SIZE, SIZE), np.float32)
    vectors = model.image_encoder.embed(pixels)
    assert (vectors.shape, vectors.dtype) == ((5, DIMENSIONS), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for index in range(5):
        np.testing.assert_allclose(model.image_encoder.embed(pixels[index : index + 1])[0], vectors[index], atol=1e-5)


def test_a_text_vector_does_not_depend_on_padding(model: Model) -> None:
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    tokens = model.tokenizer.encode("a red dress")
    whole, cut = tokens.ids[None], tokens.ids[None, : tokens.length]
    np.testing.assert_allclose(model.text_encoder.embed(whole), model.text_encoder.embed(cut), atol=1e-6)


TOKENS = ["a red dress", "a red dress", "a red shoe", "", "a", "a photo of a very small dog", "no red dress"]


def ids_of(model: Model, texts: Sequence[str] = TOKENS) -> NDArray[np.int64]:
    assert model.tokenizer is not None
    return np.stack([model.tokenizer.encode(text).ids for text in texts])


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_a_tower_of_packed_texts_gives_each_its_vector_in_its_place(model: Model, tmp_path: Path, threads: int) -> None:
    onnx.save(packed_text_graph(), tmp_path / "text.onnx")
    packed = open_session(tmp_path / "text.onnx", DevicePlan("cpu", threads))
    encoder = SessionEncoder(packed, TEXT_TOWER, DIMENSIONS, parting=packed if threads > 1 else None, threads=threads)
    assert encoder.packs
    assert model.text_encoder is not None
    assert not model.text_encoder.packs
    ids = ids_of(model)
    np.testing.assert_allclose(encoder.embed(ids), model.text_encoder.embed(ids), atol=1e-6)
    np.testing.assert_array_equal(encoder.embed(ids), np.concatenate([encoder.embed(row[None]) for row in ids]))
    encoder.warm_up((77,), [1, 4], fill=int(ids[0, 0]))


@pytest.mark.parametrize(("text_rows", "packed", "runs"), [(8, True, 2), (9, True, 1), (1, False, 1)])
def test_texts_are_computed_in_parts_where_each_thread_has_rows_enough(
    model: Model, tmp_path: Path, text_rows: int, packed: bool, runs: int
) -> None:
    onnx.save(packed_text_graph() if packed else text_graph(), tmp_path / "text.onnx")
    watched = Counted(open_session(tmp_path / "text.onnx", DevicePlan("cpu", 2)))
    encoder = SessionEncoder(watched, TEXT_TOWER, DIMENSIONS, parting=watched, threads=2, text_rows=text_rows)
    ids = ids_of(model, ["a red dress", "a blue shoe", "two very small dogs", "one cat beside another"])
    vectors = encoder.embed(ids)
    assert watched.runs == runs
    assert model.text_encoder is not None
    np.testing.assert_allclose(vectors, model.text_encoder.embed(ids), atol=1e-6)


class Counted:
    """A session that counts its runs."""

    def __init__(self, made: ort.InferenceSession) -> None:
        self.runs = 0
        self._made = made
        self.get_inputs, self.get_outputs = made.get_inputs, made.get_outputs

    def run(self, *asked: Any) -> Sequence[Any]:
        self.runs += 1
        return list(self._made.run(*asked))

    def run_async(self, *asked: Any) -> None:
        self.runs += 1
        self._made.run_async(*asked)


class Watched:
    """The tower of packed texts, which remembers how many rows each run computed."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._session = session(packed_text_graph)
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> Sequence[Any]:
        self.rows.append(len(inputs["places"]))
        found: Sequence[Any] = self._session.run(outputs, inputs)
        return found


def test_what_texts_of_a_batch_begin_with_alike_is_computed_once(model: Model) -> None:
    watched = Watched()
    SessionEncoder(watched, TEXT_TOWER, DIMENSIONS).embed(ids_of(model, ["a red dress", "a red shoe", "a red dress"]))
    assert watched.rows == [len(["a", "red", "dress", "end", "shoe", "end"])]


def test_inputs_that_are_neither_the_manifests_nor_those_of_packed_texts_are_refused() -> None:
    for inputs in (["input_ids", "attention_mask"], ["input_ids", "paths"], ["places", "paths", "input_ids"], []):
        with pytest.raises(ModelCorruptError, match="Convert the model again") as caught:
            SessionEncoder(Taking(inputs), TEXT_TOWER, DIMENSIONS)
        assert str(inputs) in caught.value.message
    with pytest.raises(ModelCorruptError, match="input_ids"):
        SessionEncoder(Taking(["input_ids", "paths", "places"]), VISION_TOWER, DIMENSIONS)


class Taking(Session):
    """Has these inputs."""

    def __init__(self, inputs: list[str]) -> None:
        super().__init__(None)
        self._inputs = inputs

    def get_inputs(self) -> list[Named]:
        return [Named(name) for name in self._inputs]

    def get_outputs(self) -> list[Named]:
        return [Named(TEXT_TOWER.output)]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 12"),
        RuntimeError("CUDA out of memory"),
        RuntimeError("CUDA failure 2: cudaErrorMemoryAllocation"),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED: CUDA_ERROR_OUT_OF_MEMORY"),
    ],
)
def test_memory_that_is_not_there_is_told_apart(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match="Not enough memory"):
        embed(error)


def test_other_failures_say_nothing_of_the_inside() -> None:
    with pytest.raises(InferenceFailedError) as caught:
        embed(RuntimeError("/secret/path.cc:12 broke"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("features", [np.zeros((2, 3)), np.zeros((1, 4)), np.zeros((2, 4, 1)), np.zeros(4)])
def test_a_wrong_shape_is_a_failure(features: np.ndarray) -> None:
    with pytest.raises(InferenceFailedError, match=r"gave shape \("):
        embed(features)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_a_failure(tmp_path: Path, value: float) -> None:
    broken = load_model(
        write_model(tmp_path / "broken", text=False, weight=value), ModelSettings(device="cpu", threads=1)
    )
    with pytest.raises(InferenceFailedError, match="not finite"):
        broken.warm_up([1])


class Doubling(Session):
    """Gives the first four values of each item, doubled, and remembers how many items came at once."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        self.seen.append(len(inputs["x"]))
        return [2 * inputs["x"][:, :4]]


@pytest.mark.parametrize(("size", "parts"), [(2, [1, 1]), (3, [1, 1, 1]), (8, [2, 3, 3])])
def test_a_batch_in_parts_comes_back_whole_and_in_order(size: int, parts: list[int]) -> None:
    session = Doubling()
    batch = np.arange(1, 5 * size + 1, dtype=np.float32).reshape(size, 5)
    features = SessionEncoder(session, TOWER, 4, parting=session, threads=3).embed(batch)
    np.testing.assert_allclose(features, batch[:, :4] / np.linalg.norm(batch[:, :4], axis=1, keepdims=True), atol=1e-6)
    assert sorted(session.seen) == parts


class Single(Doubling):
    """Has no thread to give to a part."""

    def run_async(self, *_: object) -> None:
        raise AssertionError("nothing is to be begun on another thread")


@pytest.mark.parametrize(("items", "parted"), [(1, True), (8, False)])
def test_one_item_and_a_batch_that_is_not_parted_have_all_threads_for_themselves(items: int, parted: bool) -> None:
    session = Single()
    SessionEncoder(session, TOWER, 4, parting=session if parted else None, threads=3).embed(
        np.ones((items, 5), np.float32)
    )
    assert session.seen == [items]


class Failing(Doubling):
    """Fails in the first part, which another thread has, or in the last, which the caller's has."""

    def __init__(self, error: Exception, *, first: bool) -> None:
        super().__init__()
        self._error, self._first = error, first

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        if bool(inputs["x"][0, 0]) == self._first:
            raise self._error
        return super().run(outputs, inputs)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("error", "expected"), [(RuntimeError("std::bad_alloc"), OutOfMemoryError), (OSError(), InferenceFailedError)]
)
def test_a_part_that_fails_fails_the_batch_once_all_are_over(
    error: Exception, expected: type[Exception], first: bool
) -> None:
    session = Failing(error, first=first)
    encoder = SessionEncoder(session, TOWER, 4, parting=session, threads=2)
    with pytest.raises(expected):
        encoder.embed(np.array([[1] * 5, [0] * 5], np.float32))
    assert session.seen == [1]


class Dawdling:
    """A session whose threads take their time to go once the results are there."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_async(self, outputs: Any, inputs: Any, callback: Callable[..., None], user_data: object) -> None:
        def call_and_stay(*outcome: Any) -> None:
            callback(*outcome)
            time.sleep(0.05)

        self._session.run_async(outputs, inputs, call_and_stay, user_data)


def test_a_session_is_never_closed_by_a_thread_of_its_own(tmp_path: Path) -> None:
    """Which would wait for itself. The batch is the last that holds the session."""
    graph = write_model(tmp_path / "small", text=False) / VISION_TOWER.variants["fp32"]
    session = open_session(graph, DevicePlan("cpu", 3))
    closed_by: list[int] = []
    inner = ref(session._sess, lambda _: closed_by.append(threading.get_ident()))
    dawdling = Dawdling(session)
    encoder = SessionEncoder(dawdling, VISION_TOWER, DIMENSIONS, parting=dawdling, threads=3)
    del session, dawdling
    threads = psutil.Process().num_threads()
    encoder.embed(np.ones((3, 3, SIZE, SIZE), np.float32))
    del encoder
    assert (inner(), closed_by) == (None, [threading.get_ident()])
    assert psutil.Process().num_threads() == threads - 2


class Interrupted(Doubling):
    """Is sent Ctrl-C by the caller's own part, and again while the caller waits for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = threading.Event()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        if threading.current_thread() is threading.main_thread():
            self.interrupted.set()
            signal.raise_signal(signal.SIGINT)
        assert self.interrupted.wait(30)
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        return super().run(outputs, inputs)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interruptions_come_once_all_parts_are_over() -> None:
    session = Interrupted()
    encoder = SessionEncoder(session, TOWER, 4, parting=session, threads=2)
    with pytest.raises(KeyboardInterrupt):
        encoder.embed(np.ones((2, 5), np.float32))
    assert session.seen == [1]


def test_warming_up_runs_every_batch_size_of_both_towers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = SessionEncoder.embed

    def record(self: SessionEncoder, batch: np.ndarray) -> np.ndarray:
        seen.append(batch.shape)
        return real(self, batch)

    monkeypatch.setattr(SessionEncoder, "embed", record)
    model.warm_up([1, 16])
    assert seen == [(1, 3, SIZE, SIZE), (16, 3, SIZE, SIZE), (1, 77)]


def test_a_closed_encoder_says_so_and_may_be_closed_again() -> None:
    encoder = SessionEncoder(Doubling(), TOWER, 4)
    encoder.close()
    encoder.close()
    with pytest.raises(InferenceFailedError, match="closed"):
        encoder.embed(np.ones((1, 5), np.float32))


class Held(Doubling):
    """Waits in its first part until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        self.entered.set()
        assert self.go_on.wait(30)
        return super().run(outputs, inputs)


def test_a_batch_in_parts_that_is_closed_in_the_middle_is_computed_to_its_end() -> None:
    held = Held()
    encoder = SessionEncoder(held, TOWER, 4, parting=held, threads=2)
    with ThreadPoolExecutor(1) as caller:
        batch = caller.submit(encoder.embed, np.ones((2, 5), np.float32))
        assert held.entered.wait(30)
        encoder.close()
        held.go_on.set()
        assert batch.result(30).shape == (2, 4)
    with pytest.raises(InferenceFailedError, match="closed"):
        encoder.embed(np.ones((2, 5), np.float32))


@pytest.mark.parametrize(("value", "reason"), [(0.0, "zeros"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_a_row_without_a_direction_fails_the_batch(value: float, reason: str) -> None:
    with pytest.raises(InferenceFailedError, match=reason):
        embed(np.array([[1, 2, 3, 4], [value] * 4], np.float32))
