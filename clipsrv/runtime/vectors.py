"""Vectors after the model: of unit length. Pure functions of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.errors import InferenceFailedError

#: (n, dimensions) of unit length, or one row of it.
Vectors = NDArray[np.float32]

#: Rows shorter than this have squares that float32 cannot tell well from zero: what they were divided by would not be
#: their length.
_SHORTEST = 1e-15


def unit(features: NDArray[np.floating[Any]]) -> Vectors:
    """Rows of `features` (n, dimensions) divided by their Euclidean norm, float32.

    Raises InferenceFailedError for a row that has no direction: values that are not finite, zeros, or values too large
    or too small for their squares to be float32.
    """
    features = np.asarray(features, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(features, axis=-1, keepdims=True)
    if not np.isfinite(norms).all():
        raise InferenceFailedError("The model gave values that are not finite.")
    if not (norms > _SHORTEST).all():
        raise InferenceFailedError("The model gave a vector of zeros.")
    return np.asarray(features / norms, np.float32)
