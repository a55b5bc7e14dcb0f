"""One tower: a batch in, checked features out; what the runtime raises becomes one of two errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsrv.encoder import Encoder
from clipsrv.errors import InferenceFailedError, OutOfMemoryError
from clipsrv.manifest import TowerSpec
from clipsrv.model import Model, load_model
from tests.parts.model import DIMENSIONS, SIZE, write_model

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

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        if isinstance(self._result, BaseException):
            raise self._result
        return [self._result]


def encode(result: Any) -> np.ndarray:
    return Encoder(Session(result), TOWER, 4).encode(np.zeros((2, 3), np.float32))  # type: ignore[arg-type]


def test_features_of_a_batch_are_those_of_its_items(model: Model) -> None:
    pixels = np.random.default_rng(0).standard_normal((5, 3, SIZE, SIZE), np.float32)
    features = model.image_encoder.encode(pixels)
    assert (features.shape, features.dtype) == ((5, DIMENSIONS), np.float32)
    for index in range(5):
        np.testing.assert_allclose(model.image_encoder.encode(pixels[index : index + 1])[0], features[index], atol=1e-5)


def test_text_features_do_not_depend_on_padding(model: Model) -> None:
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    tokens = model.tokenizer.encode("a red dress")
    whole, cut = tokens.ids[None], tokens.ids[None, : tokens.length]
    np.testing.assert_allclose(model.text_encoder.encode(whole), model.text_encoder.encode(cut), atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 12"),
        RuntimeError("CUDA out of memory"),
    ],
)
def test_memory_that_is_not_there_is_told_apart(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match="Not enough memory"):
        encode(error)


def test_other_failures_say_nothing_of_the_inside() -> None:
    with pytest.raises(InferenceFailedError) as caught:
        encode(RuntimeError("/secret/path.cc:12 broke"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("features", [np.zeros((2, 3)), np.zeros((1, 4)), np.zeros((2, 4, 1)), np.zeros(4)])
def test_a_wrong_shape_is_a_failure(features: np.ndarray) -> None:
    with pytest.raises(InferenceFailedError, match=r"gave shape \("):
        encode(features)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_a_failure(tmp_path: Path, value: float) -> None:
    broken = load_model(write_model(tmp_path / "broken", text=False, weight=value), device="cpu", threads=1)
    with pytest.raises(InferenceFailedError, match="not finite"):
        broken.warm_up([1])


class Doubling(Session):
    """Gives the first four values of each item, doubled, and remembers how many items came at once."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        self.seen.append(len(inputs["x"]))
        return [2 * inputs["x"][:, :4]]


@pytest.mark.parametrize(("size", "parts"), [(2, [1, 1]), (3, [1, 1, 1]), (8, [2, 3, 3])])
def test_a_batch_in_parts_comes_back_whole_and_in_order(size: int, parts: list[int]) -> None:
    shared, single = Doubling(), Doubling()
    batch = np.arange(5 * size, dtype=np.float32).reshape(size, 5)
    features = Encoder(shared, TOWER, 4, single=single, threads=3).encode(batch)  # type: ignore[arg-type]
    np.testing.assert_array_equal(features, 2 * batch[:, :4])
    assert (sorted(single.seen), shared.seen) == (parts, [])


def test_one_item_has_all_threads_for_itself() -> None:
    shared, single = Doubling(), Doubling()
    Encoder(shared, TOWER, 4, single=single, threads=3).encode(np.zeros((1, 5), np.float32))  # type: ignore[arg-type]
    assert (single.seen, shared.seen) == ([], [1])


@pytest.mark.parametrize(("error", "expected"), [(MemoryError(), OutOfMemoryError), (OSError(), InferenceFailedError)])
def test_a_part_that_fails_fails_the_batch(error: Exception, expected: type[Exception]) -> None:
    encoder = Encoder(Doubling(), TOWER, 4, single=Session(error), threads=2)  # type: ignore[arg-type]
    with pytest.raises(expected):
        encoder.encode(np.zeros((4, 5), np.float32))


def test_warming_up_runs_every_batch_size_of_both_towers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = Encoder.encode

    def record(self: Encoder, batch: np.ndarray) -> np.ndarray:
        seen.append(batch.shape)
        return real(self, batch)

    monkeypatch.setattr(Encoder, "encode", record)
    model.warm_up([1, 16])
    assert seen == [(1, 3, SIZE, SIZE), (16, 3, SIZE, SIZE), (1, 77)]
