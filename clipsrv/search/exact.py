"""The nearest of any number of vectors by plain arithmetic, a block at a time. Pure functions of numpy.

Float32 finds who comes into question, float64 decides: so equal vectors have equal scores wherever they lie, and the
order is that of the exact cosines.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from clipsrv.runtime.vectors import Vectors
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.words import Block, Found

#: Bytes of vectors that one multiplication goes through: enough that its threads are worth waking.
BLOCK_BYTES = 128 * 2**20
#: Vectors made float64 at once.
_WIDENED = 1024
#: The square of a vector's length is 1 but for this.
_UNIT = 1e-3


def rows_of_block(dimensions: int) -> int:
    """Rows that make up a block of BLOCK_BYTES."""
    return max(1, BLOCK_BYTES // (4 * dimensions))


def nearest(name: str, blocks: Iterable[Block], query: Vectors, limit: int) -> list[Found]:
    """The `limit` rows with the largest cosine of the index `name`, best first, equal ones in the order of their rows.

    Raises UnusableIndexError for a vector that is not finite, or of what is found one that is not of unit length.
    """
    # Twice what float32 may be off in adding so many products (Higham, Accuracy and Stability, 3.1).
    slack = np.float32(2 * query.size * 2.0**-24)
    best: list[tuple[float, int, Found]] = []
    for block in blocks:
        rough = block.vectors @ query
        if not np.isfinite(rough).all():
            place = int(np.flatnonzero(~np.isfinite(rough))[0])
            raise _unfit(name, block, place, "is not finite: an image that could not be used has no vector")
        floor = np.float32(-best[-1][0]) if len(best) == limit else np.float32(-np.inf)
        hopeful = np.flatnonzero(rough >= floor - slack)
        if len(hopeful) > limit:
            floor = np.partition(rough[hopeful], -limit)[-limit]
            hopeful = hopeful[rough[hopeful] >= floor - slack]
        scores = _cosines(name, block, hopeful, query)
        order = np.lexsort((hopeful, -scores))[:limit]
        found = ((int(hopeful[at]), float(scores[at])) for at in order)
        best += [(-score, block.first + place, Found(block.item(place), score)) for place, score in found]
        best = sorted(best, key=itemgetter(0, 1))[:limit]
    return [found for _, _, found in best]


def _cosines(name: str, block: Block, places: NDArray[np.intp], query: Vectors) -> NDArray[np.float64]:
    """Exact to float64, and the same for equal vectors: each row is added up by itself."""
    scores, wide = np.empty(len(places)), query.astype(np.float64)
    for at in range(0, len(places), _WIDENED):
        rows = block.vectors[places[at : at + _WIDENED]].astype(np.float64)
        scores[at : at + len(rows)] = (rows * wide).sum(axis=1)
        off = np.flatnonzero(np.abs((rows * rows).sum(axis=1) - 1) > _UNIT)
        if off.size:
            raise _unfit(name, block, int(places[at + off[0]]), "is not of unit length")
    return scores


def _unfit(name: str, block: Block, place: int, what: str) -> UnusableIndexError:
    return UnusableIndexError(f"In {name} the vector of {block.item(place).id!r} (row {block.first + place:,}) {what}.")
