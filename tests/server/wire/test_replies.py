"""The encodings that vectors leave in."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clipsrv.server.wire.replies import to_base64, to_npy

rows = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 64)), elements=st.integers(-1000, 1000).map(float)
)


@given(rows)
def test_base64_is_little_endian_float32(vectors: np.ndarray) -> None:
    assert np.array_equal(np.frombuffer(base64.b64decode(to_base64(vectors[0])), "<f4"), vectors[0])
    swapped = vectors[0].astype(">f4")
    assert to_base64(swapped) == to_base64(vectors[0])


@given(rows)
def test_a_numpy_file_reads_back(vectors: np.ndarray) -> None:
    read = np.load(BytesIO(to_npy(vectors)), allow_pickle=False)
    assert read.dtype == np.dtype("<f4")
    assert np.array_equal(read, vectors)
