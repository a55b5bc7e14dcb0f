"""Recall of a search by dot product, as numbers between 0 and 1. Knows neither models nor emoji."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Recall:
    """Recall of one search: `at_1`, `at_10`, and what blind guessing would reach at 10."""

    queries: int
    gallery: int
    at_1: float
    at_10: float
    chance_at_10: float


def recall_at(similarity: NDArray[np.float32], correct: NDArray[np.bool_], k: int) -> float:
    """Share of queries (rows) with at least one correct entry (columns) among the `k` most similar.

    Ties count against the search: a wrong entry as similar as the right one is taken to come first.
    Raises `ValueError` when a query has no correct entry, since that could never be found.
    """
    if not correct.any(axis=1).all():
        raise ValueError("every query needs a correct entry in the gallery")
    best = np.where(correct, similarity, -np.inf).max(axis=1, keepdims=True)
    ahead = ((similarity >= best) & ~correct).sum(axis=1)
    return float((ahead < k).mean())


def search(
    queries: NDArray[np.float32],
    query_labels: NDArray[np.int64],
    gallery: NDArray[np.float32],
    gallery_labels: NDArray[np.int64],
) -> Recall:
    """Recall of unit vectors (n, d) in a gallery (m, d); equal labels are correct.

    Queries whose label the gallery lacks are left out.
    """
    known = np.isin(query_labels, gallery_labels)
    correct = query_labels[known, None] == gallery_labels[None]
    similarity = queries[known] @ gallery.T
    size = len(gallery_labels)
    # Chance of at least one of `c` correct entries among ten drawn without putting back.
    missed = np.ones(len(correct))
    for drawn in range(min(10, size)):
        missed *= np.clip(size - correct.sum(axis=1) - drawn, 0, None) / (size - drawn)
    return Recall(
        int(known.sum()),
        size,
        recall_at(similarity, correct, 1),
        recall_at(similarity, correct, 10),
        float(1 - missed.mean()),
    )
