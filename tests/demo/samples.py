"""A handful of emoji and random drawings: enough to run the training for a few steps."""

import numpy as np

from conversions.demo.images import Images
from conversions.demo.names import Emoji
from conversions.demo.sources import VENDORS

EMOJI = [
    Emoji("2764", "❤️", "red heart", ("heart",), ("love", "red", "emotion")),
    Emoji("1f49b", "💛", "yellow heart", (), ("love", "yellow", "emotion")),
    Emoji("1f34e", "🍎", "red apple", ("apple",), ("fruit", "red")),
    Emoji("1f34c", "🍌", "banana", (), ("fruit", "yellow")),
]


def drawings() -> Images:
    """One drawing of every vendor for each emoji; the first pixel tells the vendor's number."""
    count = len(EMOJI) * len(VENDORS)
    rgba = np.random.default_rng(0).integers(0, 256, (count, 4, 128, 128), dtype=np.uint8)
    vendor = np.repeat(np.arange(len(VENDORS)), len(EMOJI))
    rgba[:, 0, 0, 0] = vendor
    return Images(rgba, np.tile(np.arange(len(EMOJI)), len(VENDORS)), vendor)
