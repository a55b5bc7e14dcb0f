"""The recall figures, on vectors whose order can be seen at a glance."""

import numpy as np
import pytest

from conversions.demo.recall import recall_at, search

AXES = np.eye(4, dtype=np.float32)
LABELS = np.arange(4)


def test_a_perfect_search_finds_everything_first() -> None:
    found = search(AXES, LABELS, AXES, LABELS)
    assert (found.at_1, found.at_10) == (1.0, 1.0)


def test_recall_counts_the_place_of_the_best_correct_entry() -> None:
    similarity = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.9, 0.8, 0.1]], dtype=np.float32)
    correct = np.eye(3, dtype=np.bool_)
    assert [recall_at(similarity, correct, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_any_of_several_correct_entries_will_do() -> None:
    similarity = np.array([[0.1, 0.9, 0.5]], dtype=np.float32)
    assert recall_at(similarity, np.array([[True, True, False]]), 1) == 1.0


def test_a_model_that_gives_every_image_the_same_vector_finds_nothing() -> None:
    same = np.full((4, 4), 0.5, dtype=np.float32)
    assert search(same, LABELS, same, LABELS).at_1 == 0.0


def test_queries_without_an_answer_in_the_gallery_are_left_out() -> None:
    found = search(AXES, LABELS, AXES[:3], LABELS[:3])
    assert (found.queries, found.gallery, found.at_1) == (3, 3, 1.0)


def test_a_query_without_a_correct_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="correct entry"):
        recall_at(np.ones((1, 2), dtype=np.float32), np.zeros((1, 2), dtype=np.bool_), 1)


def test_chance_is_ten_in_the_size_of_the_gallery_for_one_correct_entry() -> None:
    vectors = np.eye(70, dtype=np.float32)
    assert search(vectors, np.arange(70), vectors, np.arange(70)).chance_at_10 == pytest.approx(10 / 70)


def test_chance_grows_with_the_number_of_correct_entries() -> None:
    vectors = np.eye(20, dtype=np.float32)
    chance = search(vectors[:1], np.zeros(1, dtype=np.int64), vectors, np.arange(20) // 2).chance_at_10
    assert chance == pytest.approx(1 - (10 / 20) * (9 / 19))
