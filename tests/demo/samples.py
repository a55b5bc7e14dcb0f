"""A handful of emoji and random drawings: enough to run the training for a few steps."""

import numpy as np

from conversions.demo.images import Images
from conversions.demo.names import ENGLISH, JAPANESE, Emoji, Words
from conversions.demo.sources import VENDORS


def _emoji(key: str, char: str, english: Words, japanese: Words) -> Emoji:
    return Emoji(key, char, {ENGLISH: english, JAPANESE: japanese})


EMOJI = [
    _emoji(
        "2764",
        "❤️",
        Words("red heart", ("heart",), ("love", "red", "emotion")),
        Words("赤いハート", (), ("ハート", "赤", "愛")),
    ),
    _emoji(
        "1f49b",
        "💛",
        Words("yellow heart", (), ("love", "yellow", "emotion")),
        Words("黄色いハート", (), ("ハート", "愛")),
    ),
    _emoji("1f34e", "🍎", Words("red apple", ("apple",), ("fruit", "red")), Words("赤リンゴ", (), ("りんご", "果物"))),
    _emoji("1f34c", "🍌", Words("banana", (), ("fruit", "yellow")), Words("バナナ", (), ("果物",))),
]


def drawings() -> Images:
    """One drawing of every vendor for each emoji; the first pixel tells the vendor's number."""
    count = len(EMOJI) * len(VENDORS)
    rgba = np.random.default_rng(0).integers(0, 256, (count, 4, 128, 128), dtype=np.uint8)
    vendor = np.repeat(np.arange(len(VENDORS)), len(EMOJI))
    rgba[:, 0, 0, 0] = vendor
    return Images(rgba, np.tile(np.arange(len(EMOJI)), len(VENDORS)), vendor)
