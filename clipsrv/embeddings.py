"""Vectors after the model: unit length, and the encodings they leave in. Pure functions of numpy."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

#: (n, dimensions) of unit length, or one row of it.
Embeddings = NDArray[np.float32]


def l2_normalize(features: NDArray[np.float32]) -> Embeddings:
    """Rows of `features` (n, dimensions) divided by their Euclidean norm.

    Raises ValueError for a row whose norm is zero, or too large for float32.
    """
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(features, axis=-1, keepdims=True)
    if not norms.all() or not np.isfinite(norms).all():
        raise ValueError("a vector of zeros, or of values too large to square, has no direction")
    return np.asarray(features / norms)


def to_base64(embedding: Embeddings) -> str:
    """Little-endian float32 bytes of one vector in base64."""
    return base64.b64encode(embedding.astype("<f4", copy=False).tobytes()).decode("ascii")


def to_npy(embeddings: Embeddings) -> bytes:
    """A NumPy file (format 1.0) of shape (n, dimensions), float32."""
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(embeddings, "<f4"), version=(1, 0), allow_pickle=False)
    return file.getvalue()
