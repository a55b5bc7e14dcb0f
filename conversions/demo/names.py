"""Emoji and what people call them: labels, short names, keywords, and which emoji a phrase may mean.

Must know nothing of images or of the model.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHORTCODE_SETS = ("cldr", "emojibase", "github", "iamcal", "joypixels")
TEMPLATES = (
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
)


@dataclass(frozen=True)
class Emoji:
    """One emoji without skin tone. `keywords` may be shared with other emoji, `names` seldom are."""

    key: str
    char: str
    label: str
    names: tuple[str, ...]
    keywords: tuple[str, ...]


def codepoints(text: str) -> str:
    """The key of an emoji: hexadecimal code points in lower case joined by '-', variation selectors left out."""
    return "-".join(point for point in text.lower().split("-") if point != "fe0f")


def plain(text: str) -> str:
    """A name as a person would type it: lower case, '_' and '-' and ':' as spaces, curly quotes straight."""
    text = text.lower().replace("\u2019", "'").replace("\u201c", "").replace("\u201d", "")
    return re.sub(r"\s+", " ", re.sub(r"[_:\-]", " ", text)).strip()


def load_emoji(modules: Path) -> list[Emoji]:
    """All emoji of Unicode's recommended set without skin tones, in emojibase's order."""
    data = modules / "emojibase-data" / "en"
    entries = [entry for entry in json.loads((data / "data.json").read_text()) if "group" in entry]
    shortcodes: dict[str, list[str]] = defaultdict(list)
    for name in SHORTCODE_SETS:
        for hexcode, codes in json.loads((data / "shortcodes" / f"{name}.json").read_text()).items():
            shortcodes[codepoints(hexcode)] += [codes] if isinstance(codes, str) else codes
    library = json.loads((modules / "emojilib" / "dist" / "emoji-en-US.json").read_text())
    loaded = []
    for entry in entries:
        key = codepoints(entry["hexcode"])
        label = plain(entry["label"])
        names = _unique(map(plain, shortcodes[key]), {label})
        words = [*entry.get("tags", ()), *library.get(entry["emoji"], ())]
        keywords = _unique(map(plain, words), {label, *names})
        loaded.append(Emoji(key, entry["emoji"], label, names, keywords))
    return loaded


def _unique(phrases: Iterable[str], known: set[str]) -> tuple[str, ...]:
    return tuple(phrase for phrase in dict.fromkeys(phrases) if phrase and phrase not in known)


class Phrases:
    """Draws a random phrase for an emoji and tells every emoji the phrase fits.

    That matters for the loss: "heart" belongs to thirty emoji, none of which may count as a wrong answer.
    """

    def __init__(self, emoji: list[Emoji]) -> None:
        self.emoji = emoji
        holders: dict[str, set[int]] = defaultdict(set)
        for index, one in enumerate(emoji):
            for phrase in (one.label, *one.names, *one.keywords):
                holders[phrase].add(index)
        self.holders = {phrase: frozenset(found) for phrase, found in holders.items()}

    def draw(self, index: int, rng: np.random.Generator) -> tuple[str, frozenset[int]]:
        """A phrase for emoji `index` and the indices of all emoji it fits, `index` among them."""
        one = self.emoji[index]
        kind = rng.random()
        if kind < 0.40 or not one.keywords:
            text, fits = one.label, self.holders[one.label]
        elif kind < 0.57 and one.names:
            text = one.names[rng.integers(len(one.names))]
            fits = self.holders[text]
        elif kind < 0.60:
            return one.char, frozenset({index})
        else:
            return self._from_keywords(one, index, rng, with_label=kind > 0.85)
        return TEMPLATES[rng.integers(len(TEMPLATES))].format(text), fits

    def _from_keywords(
        self, one: Emoji, index: int, rng: np.random.Generator, *, with_label: bool
    ) -> tuple[str, frozenset[int]]:
        # One in twenty is long, so that the later positions of the text tower are trained as well.
        wanted = 24 if rng.random() < 0.05 else int(rng.integers(1, 5))
        picked = rng.permutation(len(one.keywords))[:wanted]
        words = [one.keywords[i] for i in picked]
        if with_label:
            words.insert(int(rng.integers(len(words) + 1)), one.label)
        fits = frozenset.intersection(*(self.holders[word] for word in words))
        joined = (", " if rng.random() < 0.3 else " ").join(words)
        return joined, fits | {index}

    def draw_batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[list[str], NDArray[np.bool_]]:
        """Phrases for `indices`, and a bool array (phrases, emoji) of what each fits."""
        fits = np.zeros((len(indices), len(self.emoji)), dtype=np.bool_)
        texts = []
        for row, index in enumerate(indices):
            text, fitting = self.draw(int(index), rng)
            texts.append(text)
            fits[row, list(fitting)] = True
        return texts, fits

    def corpus(self) -> list[str]:
        """Every phrase once and the templates often: what the vocabulary is learnt from."""
        return [*self.holders, *(20 * [template.format("") for template in TEMPLATES])]
