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
    ("value", "reason"), [(0.0, "zeros"), (1e-40, "zeros"), (1e30, "not finite"), (np.nan, "not finite")]
)
def test_a_row_without_a_length_has_no_direction(value: float, reason: str) -> None:
    """Zeros, and values whose squares are beyond float32: dividing would give zeros, or no number at all."""
    with pytest.raises(InferenceFailedError, match=reason):
        unit(np.array([[1, 2], [value, value]], np.float32))
