"""Texts as people search a shop or their photos for: of 8 to 20 tokens, no two alike, the same ones each time."""

from __future__ import annotations

import itertools

_THINGS = (
    *("leather handbag", "wool scarf", "pair of running shoes", "coffee grinder", "bicycle helmet", "wooden toy train"),
    *("linen shirt", "reading lamp", "cast iron pan", "garden chair", "silver necklace", "hiking backpack"),
)
_KINDS = (
    *("red", "dark blue", "second-hand", "hand made", "striped", "very small", "waterproof", "old fashioned"),
    *("light grey", "colourful", "plain white", "shiny"),
)
_PLACES = (
    *("on a wooden table", "in the snow", "beside a window", "on a beach at sunset", "held by a child"),
    *("in a shop window", "on grass, seen from above", "against a white wall", "in a busy street at night"),
    *("photographed from the side", "packed for a long journey", "under the tree"),
)
_MOODS = ("", ", in black and white", ", close up", ", out of focus in the background")


def make_texts(count: int) -> list[str]:
    """The first `count` of them. Raises ValueError beyond 6,912."""
    every = [
        f"a {kind} {thing} {place}{mood}"
        for mood, kind, thing, place in itertools.product(_MOODS, _KINDS, _THINGS, _PLACES)
    ]
    if count > len(every):
        raise ValueError(f"There are {len(every):,} texts, not {count:,}.")
    # A stride that shares no factor with their number visits each once, and lets neighbours differ in every word.
    return [every[number * 1789 % len(every)] for number in range(count)]
