"""Vectors after the model: unit length, or an error that says why not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clipsrv.errors import InferenceFailedError
from clipsrv.runtime.vectors import unit

rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 64)),
    elements=st.integers(-1000, 1000).map(lambda number: number / 64 or 1.0),
)


@given(rows)
def test_rows_become_unit_vectors_in_the_same_direction(features: np.ndarray) -> None:
    vectors = unit(features)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
    assert (np.sign(vectors) == np.sign(features)).all()


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0.0, "zeros"), (1e-40, "zeros"), (1e-22, "zeros"), (1e30, "not finite"), (np.nan, "not finite")],
)
def test_a_row_without_a_length_has_no_direction(value: float, reason: str) -> None:
    """Zeros, and values whose squares are beyond float32: dividing would give zeros, or no number at all."""
    with pytest.raises(InferenceFailedError, match=reason):
        unit(np.array([[1, 2], [value, value]], np.float32))


@given(
    arrays.arrays(np.float32, st.integers(1, 64), elements=st.floats(-1, 1, width=32)),
    st.integers(-40, 30),
)
def test_whatever_the_size_of_the_values_a_vector_is_of_unit_length_or_refused(
    features: np.ndarray, exponent: int
) -> None:
    with np.errstate(over="ignore", under="ignore"):
        row = (features.astype(np.float64) * 10.0**exponent).astype(np.float32)
    try:
        vector = unit(row[None])[0]
    except InferenceFailedError:
        return
    assert abs(np.linalg.norm(vector.astype(np.float64)) - 1) < 1e-6


def test_half_precision_features_give_vectors_as_exact_as_they_are_themselves() -> None:
    """In float16 the squares of 300 would overflow, and a length would have three digits."""
    features = np.random.default_rng(0).normal(scale=300, size=(4, 512)).astype(np.float16)
    vectors = unit(features)
    assert vectors.dtype == np.dtype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
