"""Texts as packed towers take them: a row for each distinct beginning, and every token on its text's path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipsrv.runtime.packing import apart, pack

BEGIN, END = 9, 8

Ids = NDArray[np.int64]
#: Of so few words that many begin alike.
Words = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=12)


def filled(words: list[list[int]], further: int = 0) -> Ids:
    """Texts between their marks, filled up with the end mark to the longest and `further`."""
    longest = max(map(len, words)) + 2 + further
    return np.array([[BEGIN, *text, *[END] * (longest - 1 - len(text))] for text in words])


def beginnings(text: list[int]) -> list[tuple[int, ...]]:
    """What a text, its end mark included, begins with, the shortest first."""
    marked = [*text, END]
    return [tuple(marked[: end + 1]) for end in range(len(marked))]


@settings(deadline=None)  # a busy machine may leave any of them waiting
@given(Words, st.integers(0, 3))
def test_there_is_one_row_for_each_distinct_beginning_and_none_of_padding(words: list[list[int]], further: int) -> None:
    ids, paths, places = pack(filled(words, further))
    rows: dict[tuple[int, ...], int] = {}
    for number, text in enumerate(words):
        for token, beginning in enumerate(beginnings(text), start=1):
            row = rows.setdefault(beginning, int(paths[number, token]))
            assert paths[number, token] == row
    assert sorted(rows.values()) == list(range(1, len(places) + 1))
    for beginning, row in rows.items():
        number, token = divmod(int(places[row - 1]), ids.shape[1])
        assert tuple(ids[number, 1 : token + 1]) == beginning


@settings(deadline=None)
@given(Words, st.integers(0, 3))
def test_every_token_has_a_row_and_padding_changes_nothing(words: list[list[int]], further: int) -> None:
    ids, paths, places = pack(filled(words, further))
    assert (paths[:, 0] == 0).all()
    assert ((paths[:, 1:] >= 1) & (paths[:, 1:] <= len(places))).all()
    for ours, padded in zip((ids, paths, places), pack(filled(words)), strict=True):
        np.testing.assert_array_equal(ours, padded)


@settings(deadline=None)
@given(Words, st.integers(1, 5))
def test_each_text_is_in_one_part_and_parts_share_the_rows(words: list[list[int]], count: int) -> None:
    ids = filled(words)
    parts = apart(ids, count)
    assert 1 <= len(parts) <= count
    assert sorted(place for part in parts for place in part) == list(range(len(words)))
    rows = [len(pack(ids[part]).places) for part in parts]
    longest = max(map(len, words)) + 1
    # Half a text may stand over at either end, and what a part's first text shares with another part's it has too.
    assert max(rows) <= len(pack(ids).places) / count + 2 * longest


def test_parts_of_texts_that_share_nothing_are_equal() -> None:
    parts = apart(np.array([[BEGIN, first, 1, 2, END] for first in range(8)]), 2)
    assert [len(part) for part in parts] == [4, 4]


def test_there_is_one_part_where_each_thread_would_have_too_few_rows() -> None:
    ids = np.array([[BEGIN, first, 1, 2, END] for first in range(8)])
    assert [len(part) for part in apart(ids, 2, least=16)] == [4, 4]
    (part,) = apart(ids, 2, least=17)
    assert sorted(part) == list(range(8))


def test_texts_that_begin_alike_are_computed_by_the_same_thread() -> None:
    parts = apart(np.array([[BEGIN, number % 2, number, END] for number in range(2, 8)]), 2)
    assert [set(part) for part in parts] == [{0, 2, 4}, {1, 3, 5}]


def test_a_text_without_words_is_filled_up_to_two_tokens_behind_the_begin_mark() -> None:
    ids, paths, places = pack(np.array([[BEGIN, END], [BEGIN, END]]))
    assert ids.tolist() == [[BEGIN, END, END]] * 2
    assert paths.tolist() == [[0, 1, 1]] * 2
    assert places.tolist() == [1]


def test_an_end_mark_within_a_text_is_a_token_like_any_other() -> None:
    _, paths, places = pack(np.array([[BEGIN, END, 1, END, END], [BEGIN, END, END, END, END]]))
    assert len(places) == 3
    assert paths[0, 1] == paths[1, 1]


def test_other_padding_than_the_end_mark_is_one_more_row() -> None:
    assert len(pack(np.array([[BEGIN, 1, END, 0, 0, 0, 0]])).places) == 3


def test_no_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="zero-size"):
        pack(np.zeros((0, 4), np.int64))
