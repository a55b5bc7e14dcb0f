"""Labels to prompts and likenesses to scores, beside torch's own arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipsrv.errors import InvalidLabelsError
from clipsrv.models.scoring import LONGEST_LABEL, TEMPLATE, Labels, ranked, scores, scoring_of, similarities
from clipsrv.specs import ScoringSpec
from tests.support.model import make_model

SOFTMAX, SIGMOID = ScoringSpec("softmax", 100.0), ScoringSpec("sigmoid", 117.33, -12.93)


def random_cosines(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


@pytest.mark.parametrize("scoring", [SOFTMAX, SIGMOID])
def test_scores_are_those_of_torch(scoring: ScoringSpec) -> None:
    cosines = random_cosines((50, 7))
    logits = scoring.scale * torch.from_numpy(cosines) + scoring.bias
    expected = logits.softmax(dim=-1) if scoring.kind == "softmax" else logits.sigmoid()
    np.testing.assert_allclose(scores(cosines, scoring), expected.numpy(), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("scoring", [SOFTMAX, SIGMOID, ScoringSpec("softmax", 1e6), ScoringSpec("sigmoid", 1e6, -1e5)])
def test_scores_are_finite_and_from_0_to_1_however_large_the_scale(scoring: ScoringSpec) -> None:
    found = scores(np.array([[1.0, -1.0, 0.0, 1e-30]]), scoring)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_one_label_alone_is_certain_by_softmax_and_judged_by_sigmoid() -> None:
    alone = np.array([[0.1]])
    assert scores(alone, SOFTMAX)[0, 0] == 1.0
    assert math.isclose(scores(alone, SIGMOID)[0, 0], 1 / (1 + math.exp(12.93 - 11.733)))


def test_similarities_are_cosines() -> None:
    units = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(similarities(units[:2], units), np.eye(3)[:2])


def test_labels_come_best_first_and_equals_in_the_order_given() -> None:
    found = ranked(["a", "b", "c", "d"], np.array([0.1, 0.3, 0.1, 0.2]), SOFTMAX)
    assert [one.label for one in found] == ["b", "d", "a", "c"]
    assert [one.similarity for one in found] == [0.3, 0.2, 0.1, 0.1]
    assert math.isclose(sum(one.score for one in found), 1.0)


def test_labels_whose_scores_underflow_are_still_in_order() -> None:
    found = ranked(["far", "near", "there"], np.array([-1.0, -0.9, 1.0]), ScoringSpec("softmax", 1e4))
    assert [(one.label, one.score) for one in found] == [("there", 1.0), ("near", 0.0), ("far", 0.0)]


def test_a_label_stands_where_the_template_says() -> None:
    assert Labels(("cat", "猫 {} 0")).prompts == ["This is a photo of cat.", "This is a photo of 猫 {} 0."]
    assert Labels(("赤いドレス",), "{}の写真").prompts == ["赤いドレスの写真"]
    assert Labels(("a{0}", "%s"), "{}").prompts == ["a{0}", "%s"]


@pytest.mark.parametrize(
    ("labels", "template", "said"),
    [
        ((), TEMPLATE, "no label"),
        (("cat", " \t"), TEMPLATE, "is empty"),
        (("cat", "dog", "cat"), TEMPLATE, "'cat' is there more than once"),
        (("cat",), "a photo", "must hold {} once"),
        (("cat",), "{} and {}", "must hold {} once"),
        (("cat",), "", "must hold {} once"),
        (("c" * (LONGEST_LABEL + 1),), TEMPLATE, "more than 1,000 characters"),
        (("cat",), "{}" + " " * LONGEST_LABEL, "more than 1,000 characters"),
    ],
)
def test_labels_among_which_nothing_can_be_told_are_refused(labels: tuple[str, ...], template: str, said: str) -> None:
    with pytest.raises(InvalidLabelsError) as caught:
        Labels(labels, template)
    assert said in caught.value.message


def test_a_model_scores_as_its_manifest_says_and_as_clip_where_it_does_not() -> None:
    manifest = make_model().manifest
    assert scoring_of(replace(manifest, scoring=SIGMOID)) == SIGMOID
    assert scoring_of(replace(manifest, scoring=None)) == ScoringSpec("softmax", 100.0)
