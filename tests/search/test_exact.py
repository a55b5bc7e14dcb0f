"""The nearest are the nearest: against plain float64 arithmetic, in any blocks, with ties in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.exact import nearest, rows_of_block
from clipsrv.search.words import Block, Item


def unit(rows: NDArray[Any]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def blocks(vectors: Vectors, step: int) -> Iterator[Block]:
    for first in range(0, len(vectors), step):
        yield Block(
            first, vectors[first : first + step], [Item(str(first + at), "", "") for at in range(step)].__getitem__
        )


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 70), st.integers(1, 17), st.integers(1, 40))
def test_it_is_what_float64_says_whatever_the_blocks(seed: int, rows: int, limit: int, step: int, size: int) -> None:
    random = np.random.default_rng(seed)
    # Few different vectors: many are equal, and must stay in their order.
    vectors = unit(random.standard_normal((7, size)))[random.integers(0, 7, rows)]
    query = unit(random.standard_normal(size))
    found = nearest("x", blocks(vectors, step), query, limit)
    exact = [float(np.dot(row.astype(np.float64), query.astype(np.float64))) for row in vectors]
    expected = sorted(range(rows), key=lambda row: (-round(exact[row], 12), row))[:limit]
    assert [int(one.item.id) for one in found] == expected
    np.testing.assert_allclose([one.score for one in found], [exact[row] for row in expected], atol=1e-12)


def test_many_equal_vectors_come_in_their_order_from_every_block() -> None:
    vectors = np.tile(unit(np.ones(64)), (10_000, 1))
    found = nearest("x", blocks(vectors, 3_000), vectors[0], 4_000)
    assert [int(one.item.id) for one in found] == list(range(4_000))
    assert len({one.score for one in found}) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused_by_its_row(value: float) -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((20, 8)))
    vectors[13, 3] = value
    with pytest.raises(UnusableIndexError, match=r"In x the vector of '13' \(row 13\) is not finite"):
        nearest("x", blocks(vectors, 5), vectors[0], 2)


def test_a_vector_that_is_not_of_unit_length_is_refused_when_it_would_be_found() -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((20, 8)))
    vectors[7] *= 3
    with pytest.raises(UnusableIndexError, match=r"'7' \(row 7\) is not of unit length"):
        nearest("x", blocks(vectors, 5), unit(vectors[7]), 2)


def test_a_block_is_of_the_size_that_is_worth_a_multiplication() -> None:
    assert rows_of_block(512) == 65_536
    assert rows_of_block(2**30) == 1
