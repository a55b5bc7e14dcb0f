"""Texts for a tower whose tokens see only what is before them: what they share is computed once, and no padding.

What a token comes to depends on itself and on what is before it. So where texts begin alike, all tokens up to where
they part are one row of the tower, to the bit: the rows are the nodes of a trie. Knows nothing of sessions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

#: Tokens of the shortest batch, reached by padding: a lone token asks a product of one row, which is rounded otherwise.
_SHORTEST = 3


class Packed(NamedTuple):
    """What a tower of packed texts takes, int64, under the names that its inputs have.

    `input_ids` (texts, tokens). `paths`, of that shape, has the row of each token: 0 is the begin mark's, which is in
    the graph, 1 the first that is computed. Tokens that are not computed have any. `places` (rows) has of each row the
    place of one of its tokens in `input_ids`, as if that had one axis.
    """

    input_ids: Ids
    paths: Ids
    places: Ids


def pack(ids: Ids) -> Packed:
    """A batch (texts, tokens) whose texts begin with one mark, and have a token or more behind it.

    Of equal tokens at the end of a text only the first is computed, padding or not: the vector is taken at the first of
    its kind, so what follows its like to the end reaches none. Raises ValueError if there are no texts.
    """
    lengths = _lengths(ids)
    width = max(int(lengths.max()), _SHORTEST)
    ids = np.pad(ids, ((0, 0), (0, max(width - ids.shape[1], 0))), mode="edge")[:, :width]
    order = _sorted(ids)
    first = _first(ids[order], lengths[order])
    numbers = np.where(first, first.cumsum().reshape(first.shape), 1)
    # A token that begins no row has that of the text before it: the latest in its column.
    paths = np.empty_like(ids)
    paths[order] = np.maximum.accumulate(numbers, axis=0)
    paths[:, 0] = 0
    texts, tokens = np.nonzero(first)
    return Packed(ids, paths, order[texts] * width + tokens)


def apart(ids: Ids, count: int, least: int = 1) -> list[NDArray[np.intp]]:
    """The texts of a batch in up to `count` parts of about as many rows, by their places; those that begin alike stay
    together where they can. One part, if there are not `least` rows for each."""
    if count == 1:
        return [np.arange(len(ids))]
    order = _sorted(ids)
    rows = _first(ids[order], _lengths(ids)[order]).sum(axis=1)
    if rows.sum() < count * least:
        return [order]
    # Each text goes where the middle of its rows lies.
    parts = (2 * rows.cumsum() - rows) * count // (2 * rows.sum())
    bounds = np.searchsorted(parts, np.arange(1, count))
    return [part for part in np.split(order, bounds) if len(part)]


def _sorted(ids: Ids) -> NDArray[np.intp]:
    """The order of texts in which those that begin alike are neighbours."""
    return np.lexsort(ids.T[::-1])


def _lengths(ids: Ids) -> NDArray[np.intp]:
    """How many tokens of each text may reach its vector, the begin mark counted."""
    unlike = ids != ids[:, -1:]
    unlike[:, 0] = True
    last: NDArray[np.intp] = ids.shape[1] - np.argmax(unlike[:, ::-1], axis=1)
    return last + 1


def _first(ids: Ids, lengths: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which tokens of texts that are sorted begin a row: all but those that the text before has too, after the same."""
    shared = np.zeros(ids.shape, np.bool_)
    shared[1:] = np.logical_and.accumulate(ids[1:] == ids[:-1], axis=1)
    tokens = np.arange(ids.shape[1])
    shared[1:] &= tokens < lengths[:-1, None]
    computed = (tokens > 0) & (tokens < lengths[:, None])
    first: NDArray[np.bool_] = computed & ~shared
    return first
