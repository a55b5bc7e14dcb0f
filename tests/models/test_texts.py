"""Batches of texts: as few runs and as little padding as is fastest, each vector in its text's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipsrv.models.model import Model
from clipsrv.models.texts import TOKENS_PER_IMAGE, embed_texts, embed_tokens, upper_lengths
from clipsrv.runtime.vectors import Vectors
from clipsrv.text.tokens import Tokens, framed
from tests.support.model import CountingTexts


class Seen(CountingTexts):
    """The small model's text tower, which remembers the batches it was given."""

    def __init__(self, *, packed: bool = False) -> None:
        super().__init__(packed=packed)
        self.batches: list[NDArray[np.generic]] = []

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [batch.shape for batch in self.batches]

    def embed(self, batch: NDArray[np.generic]) -> Vectors:
        self.batches.append(batch)
        return super().embed(batch)


def read(model: Model, texts: Sequence[str]) -> list[Tokens]:
    assert model.tokenizer is not None
    return [model.tokenizer.encode(text) for text in texts]


TEXTS = ["a dog", "word " * 100, "a cat", "two cats", "a photo of a very small dog beside a red bicycle"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("run_cost", [None, 0, 4, 32])
def test_each_text_has_the_vector_it_has_alone_whatever_shares_its_run(
    model: Model, run_cost: int | None, packed: bool
) -> None:
    encoder, tokens = Seen(packed=packed), read(model, TEXTS)
    vectors = embed_tokens(encoder, tokens, run_cost)
    alone = np.concatenate([encoder.embed(one.ids[None, : one.length]) for one in tokens])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_short_texts_are_not_padded_to_a_long_one(model: Model) -> None:
    encoder = Seen()
    embed_tokens(encoder, read(model, TEXTS), 32)
    assert encoder.shapes == [(4, 13), (1, 77)]


def test_where_runs_are_dear_there_is_one(model: Model) -> None:
    encoder = Seen()
    embed_tokens(encoder, read(model, TEXTS), None)
    assert encoder.shapes == [(5, 77)]


def test_where_padding_is_not_computed_there_is_one_run_but_for_texts_of_quite_another_length(model: Model) -> None:
    encoder = Seen(packed=True)
    short = [text for text in TEXTS if len(text) < 100]
    embed_tokens(encoder, read(model, short), 32)
    assert encoder.shapes == [(4, 13)]
    encoder.batches.clear()
    embed_tokens(encoder, read(model, [*short * 8, "word " * 100]), 32)
    assert encoder.shapes == [(32, 13), (1, 77)]


def test_where_padding_is_not_computed_a_text_is_filled_up_with_its_own_last_token() -> None:
    """What packs knows equal tokens at the end of a text, and no padding."""
    encoder = Seen(packed=True)
    found = [framed([7, 3, 5, 9], 8, pad=0), framed([7, 9], 8, pad=0)]
    embed_tokens(encoder, found, 32)
    assert [batch.tolist() for batch in encoder.batches] == [[[7, 3, 5, 9], [7, 9, 9, 9]]]


def test_texts_that_begin_alike_share_a_batch_where_beginnings_are_computed_once(model: Model) -> None:
    encoder = Seen(packed=True)
    texts = [f"{animal} {number}" for number in range(8) for animal in ("cat", "dog", "a very small horse")]
    vectors = embed_texts(replace(model, text_encoder=encoder), texts, 1).vectors
    tokens = read(model, texts)
    begins = [list(dict.fromkeys(batch[:, 1].tolist())) for batch in encoder.batches]
    assert len(begins) > 1
    seen = [one for found in begins for one in found]
    assert len([place for place in range(1, len(seen)) if seen[place] != seen[place - 1]]) == 2
    alone = np.concatenate([encoder.embed(one.ids[None, : one.length]) for one in tokens])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def costs(lengths: Sequence[int], upper: Sequence[int], run_cost: int) -> int:
    runs = [min(one for one in upper if length <= one) for length in lengths]
    return run_cost * len(set(upper)) + sum(runs)


@settings(deadline=None)  # a busy machine may leave any of them waiting
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 12))
def test_no_other_runs_cost_less(lengths: list[int], run_cost: int) -> None:
    chosen = upper_lengths(lengths, run_cost)
    assert chosen == sorted(chosen)
    longest, *others = sorted(set(lengths), reverse=True)
    ways = [(*some, longest) for count in range(len(others) + 1) for some in combinations(others, count)]
    assert costs(lengths, chosen, run_cost) == min(costs(lengths, way, run_cost) for way in ways)


def test_of_many_texts_those_of_like_length_share_a_batch_and_each_vector_is_in_its_place(model: Model) -> None:
    encoder = Seen()
    model = replace(model, text_encoder=encoder)
    texts = [("word " * (1 + number * 7 % 12)).strip() for number in range(96)]
    vectors = embed_texts(model, texts, 2).vectors
    tokens = read(model, texts)
    padded = sum(rows * length for rows, length in encoder.shapes)
    assert padded <= 1.15 * sum(one.length for one in tokens)
    alone = np.concatenate([encoder.embed(one.ids[None, : one.length]) for one in tokens])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_many_texts_are_computed_in_batches_of_so_many_tokens(model: Model) -> None:
    encoder = Seen()
    model = replace(model, text_encoder=encoder)
    texts = [f"word {number}" for number in range(100)]
    embedded = embed_texts(model, [*texts, "word " * 100], 2)
    longest = max(one.length for one in read(model, texts))
    assert all(rows * length <= 2 * TOKENS_PER_IMAGE + 77 for rows, length in encoder.shapes)
    assert len(encoder.shapes) <= 1 + 100 * longest // (2 * TOKENS_PER_IMAGE - longest)
    assert embedded.truncated == (100,)
    np.testing.assert_allclose(
        embedded.vectors[::50], embed_texts(model, [texts[0], texts[50], "word " * 100], 1).vectors, atol=1e-6
    )
