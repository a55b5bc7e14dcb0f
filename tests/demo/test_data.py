"""What the model is trained on, and that the held-out vendor is not part of it."""

import numpy as np
import pytest
import torch

from conversions.demo.augment import augment, on_white
from conversions.demo.names import ENGLISH, JAPANESE, Words, codepoints, plain, words_of
from conversions.demo.pairs import Pairs
from conversions.demo.phrases import Phrases
from conversions.demo.sources import HELD_OUT, VENDORS
from tests.demo.samples import EMOJI, drawings

HELD_OUT_NUMBERS = [[vendor.name for vendor in VENDORS].index(name) for name in HELD_OUT]


def test_no_training_batch_ever_holds_a_drawing_of_a_held_out_vendor() -> None:
    pairs = Pairs(drawings().without(*HELD_OUT))
    rng = np.random.default_rng(0)
    seen = {int(number) for _ in range(200) for number in pairs.draw(pairs.emoji, rng)[:, 0, 0, 0]}
    assert len(HELD_OUT) == 2
    assert seen == set(range(len(VENDORS))) - set(HELD_OUT_NUMBERS)


@pytest.mark.parametrize("number", HELD_OUT_NUMBERS)
def test_a_held_out_vendor_shares_its_designs_with_no_other(number: int) -> None:
    families = [vendor.family for vendor in VENDORS]
    packages = [vendor.package for vendor in VENDORS]
    assert families.count(families[number]) == 1
    assert packages.count(packages[number]) == 1


def test_splitting_by_vendor_loses_and_doubles_nothing() -> None:
    images = drawings()
    train, unseen = images.without(*HELD_OUT), images.of(*HELD_OUT)
    assert len(train.emoji) + len(unseen.emoji) == len(images.emoji)
    assert set(unseen.vendor) == set(HELD_OUT_NUMBERS)


def test_the_two_views_of_an_emoji_come_from_different_families() -> None:
    pairs = Pairs(drawings().without(*HELD_OUT))
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, second = pairs.draw(pairs.emoji, rng)[:, 0, 0, 0].chunk(2)
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            assert VENDORS[a].family != VENDORS[b].family


def test_a_shared_keyword_fits_every_emoji_that_has_it() -> None:
    phrases = Phrases(EMOJI)
    rng = np.random.default_rng(0)
    drawn = [phrases.draw(0, rng) for _ in range(500)]
    assert all(0 in fits for _, fits in drawn)
    assert {fits for text, fits in drawn if text == "love"} == {frozenset({0, 1})}
    assert {fits for text, fits in drawn if text == "red heart"} == {frozenset({0})}


def test_names_are_written_as_a_person_would_type_them() -> None:
    assert plain("Flag: Côte d\u2019Ivoire") == "flag côte d'ivoire"
    assert plain("face_with-tears") == "face with tears"


def test_a_label_of_two_parts_is_said_the_other_way_round_too() -> None:
    flag = words_of(JAPANESE, "旗: 日本", (), ("JP", "旗"))
    assert flag == Words("旗 日本", ("日本の旗", "日本の国旗"), ("jp", "旗", "日本"))
    assert words_of(ENGLISH, "flag: Japan", ("japan",), ()).names == ("japan flag", "japan")


def test_japanese_phrases_are_japanese_and_are_written_in_every_script() -> None:
    phrases = Phrases(EMOJI, JAPANESE)
    rng = np.random.default_rng(0)
    drawn = {text for _ in range(3000) for text, _ in [phrases.draw(0, rng)]}
    assert {"赤いハート", "赤いハートの絵文字", "赤いはーと", "アカイハート".replace("アカ", "赤")} <= drawn
    assert not any("photo" in text for text in drawn)
    assert {fits for text, fits in [phrases.draw(0, rng) for _ in range(500)] if text == "ハート"} == {
        frozenset({0, 1})
    }


@pytest.mark.parametrize("text", ["2764-FE0F", "2764"])
def test_variation_selectors_do_not_make_another_emoji(text: str) -> None:
    assert codepoints(text) == "2764"


def test_augmented_images_are_of_the_training_size_and_in_range() -> None:
    rgba = torch.from_numpy(drawings().rgba)
    images = augment(rgba, torch.Generator().manual_seed(0))
    assert images.shape == (len(rgba), 3, 112, 112)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_augmentation_depends_on_the_generator_alone() -> None:
    rgba = torch.from_numpy(drawings().rgba)
    first, again, other = (augment(rgba, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_transparent_drawing_lies_on_white() -> None:
    rgba = torch.zeros((1, 4, 2, 2), dtype=torch.uint8)
    rgba[0, 3, 0, 0] = 255
    assert on_white(rgba)[0, 0].tolist() == [[0, 255], [255, 255]]
