"""What is said to the model of an emoji while it trains: a phrase of one language, and every emoji the phrase fits.

Must know nothing of images or of the model.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conversions.demo.names import ENGLISH, JAPANESE, Emoji


@dataclass(frozen=True)
class Manner:
    """How a language speaks of one thing, and puts several words together. `scripts`: words are written in several."""

    templates: tuple[str, ...]
    joints: tuple[str, ...]
    scripts: bool = False


MANNERS = {
    ENGLISH: Manner(
        templates=(
            "{}",
            "{}",
            "{} emoji",
            "an image of {}",
            "a photo of {}",
            "a photo of a {}",
            "an image of {}",
            "a drawing of {}",
            "an icon of {}",
            "the {} symbol",
            "a cartoon {}",
            "this is {}",
        ),
        joints=(" ", " ", ", "),
    ),
    JAPANESE: Manner(
        templates=(
            "{}",
            "{}",
            "{}",
            "{}",
            "{}の絵文字",
            "{}の画像",
            "{}の写真",
            "{}の絵",
            "{}のイラスト",
            "{}のアイコン",
            "{}のマーク",
            "これは{}です",
        ),
        joints=(" ", "、", "の", "　"),
        scripts=True,
    ),
}
#: The share of Japanese phrases written otherwise: in katakana, in hiragana, or with letters and digits of full width.
WRITTEN_OTHERWISE = 0.08
_TO_KATAKANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}
_TO_HIRAGANA = {katakana: hiragana for hiragana, katakana in _TO_KATAKANA.items()}
_TO_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_SCRIPTS = (_TO_KATAKANA, _TO_HIRAGANA, _TO_FULL_WIDTH)


class Phrases:
    """Draws a random phrase of one language for an emoji and tells every emoji the phrase fits.

    That matters for the loss: "heart" belongs to thirty emoji, none of which may count as a wrong answer.
    """

    def __init__(self, emoji: list[Emoji], language: str = ENGLISH) -> None:
        self.emoji = emoji
        self.language = language
        self._manner = MANNERS[language]
        self._words = [one.words[language] for one in emoji]
        holders: dict[str, set[int]] = defaultdict(set)
        for index, words in enumerate(self._words):
            for phrase in words.all:
                holders[phrase].add(index)
        self.holders = {phrase: frozenset(found) for phrase, found in holders.items()}

    def draw(self, index: int, rng: np.random.Generator) -> tuple[str, frozenset[int]]:
        """A phrase for emoji `index` and the indices of all emoji it fits, `index` among them."""
        words = self._words[index]
        kind = rng.random()
        if kind < 0.40 or not words.keywords:
            text, fits = words.label, self.holders[words.label]
        elif kind < 0.57 and words.names:
            text = words.names[rng.integers(len(words.names))]
            fits = self.holders[text]
        elif 0.57 <= kind < 0.60:
            return self.emoji[index].char, frozenset({index})
        else:
            text, fits = self._from_keywords(index, rng, with_label=kind > 0.85)
            return self._written(text, rng), fits
        templates = self._manner.templates
        return templates[rng.integers(len(templates))].format(self._written(text, rng)), fits

    def _from_keywords(self, index: int, rng: np.random.Generator, *, with_label: bool) -> tuple[str, frozenset[int]]:
        # One in twenty is long, so that the later positions of the text tower are trained as well.
        words = self._words[index]
        wanted = 24 if rng.random() < 0.05 else int(rng.integers(1, 5))
        picked = rng.permutation(len(words.keywords))[:wanted]
        chosen = [words.keywords[i] for i in picked]
        if with_label:
            chosen.insert(int(rng.integers(len(chosen) + 1)), words.label)
        fits = frozenset.intersection(*(self.holders[word] for word in chosen))
        joints = self._manner.joints
        return joints[rng.integers(len(joints))].join(chosen), fits | {index}

    def _written(self, text: str, rng: np.random.Generator) -> str:
        if not self._manner.scripts or rng.random() >= WRITTEN_OTHERWISE:
            return text
        return text.translate(_SCRIPTS[rng.integers(len(_SCRIPTS))])

    def draw_batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[list[str], NDArray[np.bool_]]:
        """Phrases for `indices`, and a bool array (phrases, emoji) of what each fits."""
        fits = np.zeros((len(indices), len(self.emoji)), dtype=np.bool_)
        texts = []
        for row, index in enumerate(indices):
            text, fitting = self.draw(int(index), rng)
            texts.append(text)
            fits[row, list(fitting)] = True
        return texts, fits


def corpus(languages: Iterable[Phrases]) -> list[str]:
    """Every phrase of `languages` once and their templates often: what the vocabulary is learnt from."""
    said = []
    for phrases in languages:
        said += [*phrases.holders, *(20 * [template.format("") for template in MANNERS[phrases.language].templates])]
    return said
