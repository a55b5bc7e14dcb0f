"""Which drawings a step looks at: two of each emoji."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conversions.demo.images import Images
from conversions.demo.sources import VENDORS


class Pairs:
    """Draws, for a set of emoji, two images each, of different vendors where there are two."""

    def __init__(self, images: Images) -> None:
        self.images = images
        families = [VENDORS[number].family for number in images.vendor]
        self.by_emoji: dict[int, dict[str, list[int]]] = {}
        for row, (emoji, family) in enumerate(zip(images.emoji, families, strict=True)):
            self.by_emoji.setdefault(int(emoji), {}).setdefault(family, []).append(row)
        self.emoji = np.array(sorted(self.by_emoji))

    def draw(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Drawings uint8 (2 n, 4, 128, 128): the first images of all, then the second ones."""
        rows: list[list[int]] = [[], []]
        for index in indices:
            families = list(self.by_emoji[int(index)].values())
            order = rng.permutation(len(families))
            for view in range(2):
                family = families[order[view % len(order)]]
                rows[view].append(family[rng.integers(len(family))])
        return torch.from_numpy(self.images.rgba[np.array(rows[0] + rows[1])])
