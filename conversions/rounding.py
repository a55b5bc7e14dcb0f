"""Weights to 8 bits: each to the nearest step, or all that share an output so that their errors cancel out.

Knows nothing of graphs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 127

#: Of the mean diagonal, added to the diagonal: directions that few samples had count for something too.
_DAMPING = 0.01
#: Rows that are settled before what they leave is spread over all rows further up, in one product.
_BLOCK = 128

Rounded = tuple[NDArray[np.int8], NDArray[np.float32]]


def round_each(weight: NDArray[np.float32]) -> Rounded:
    """(inputs, outputs) to int8 of that shape within +-127 and one scale per output: weight ~ int8 * scale."""
    scale = _scales(weight)
    return np.rint(weight / scale).astype(np.int8), scale


def round_together(weight: NDArray[np.float32], moment: NDArray[np.float32]) -> Rounded:
    """As `round_each`, but what an input's rounding adds to the outputs is taken back by the inputs that are alike.

    `moment` (inputs, inputs) is the mean of x x^T over samples of what the layer reads. Minimises the mean squared
    error of the outputs greedily, an input after the other, those of the largest second moment first: GPTQ
    (arXiv 2210.17323), computed as Babai's nearest plane (arXiv 2507.18553) from one Cholesky factor.
    """
    scale, size = _scales(weight), np.diag(moment).astype(np.float64)
    if not size.any():
        return round_each(weight)
    order = np.argsort(size, kind="stable")  # the last is rounded first
    damped = moment[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices_from(damped)] += _DAMPING * size.mean()
    factor = np.linalg.cholesky(damped).T
    shares = (factor / np.diag(factor)[:, None]).astype(np.float32)  # of a later input's error, to each earlier one
    wanted, errors = weight[order], np.zeros_like(weight)
    rounded = np.empty(weight.shape, np.int8)
    for end in range(len(weight), 0, -_BLOCK):
        begin = max(end - _BLOCK, 0)
        corrected = wanted[begin:end] + shares[begin:end, end:] @ errors[end:]
        for row in reversed(range(begin, end)):
            target = corrected[row - begin] + shares[row, row + 1 : end] @ errors[row + 1 : end]
            rounded[row] = np.clip(np.rint(target / scale), -STEPS, STEPS)
            errors[row] = wanted[row] - rounded[row] * scale
    result = np.empty_like(rounded)
    result[order] = rounded
    return result, scale


def _scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    scale: NDArray[np.float32] = np.abs(weight).max(axis=0) / np.float32(STEPS)
    scale[scale == 0] = 1
    return scale
