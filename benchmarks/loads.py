"""What is asked of a server: how many callers, what in a request, of what kind. Knows nothing of protocols."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.photos import PhotoKind, make_images
from benchmarks.phrases import make_texts

SHOP, WEB, PHONE = PhotoKind(1024, 768), PhotoKind(640, 427), PhotoKind(4032, 3024, quality=92)
PNG, WEBP = PhotoKind(1024, 768, "PNG"), PhotoKind(1024, 768, "WEBP", quality=80)

#: What one request holds: encoded images, or texts.
Contents = list[bytes] | list[str]
_One = TypeVar("_One")


@dataclass(frozen=True)
class Load:
    """`callers` connections, each sending its next request when the last was answered. A request is of so many `images`
    or of so many `texts`; if there are both, each caller sends the one and the other in turn.

    `again` is how many images or texts there are in all where they are meant to be known; else there are too many of
    them for that, and servers are told to remember nothing.
    """

    name: str
    callers: int
    images: int = 0
    texts: int = 0
    photo: PhotoKind = SHOP
    again: int = 0

    @property
    def items(self) -> float:
        """Images and texts that a request holds, on the whole."""
        return (self.images + self.texts) / (2 if self.images and self.texts else 1)

    def requests(self, cache: Path) -> list[Contents]:
        """What the requests hold that are to be sent in turn, the one at place n by caller n % `callers`."""
        images = _rotate(make_images(self.photo, self._distinct_images, cache), self.images) if self.images else []
        texts = _rotate(make_texts(self.again or max(1024, 8 * self.texts)), self.texts) if self.texts else []
        if not images or not texts:
            return [*images, *texts]
        both: tuple[list[list[bytes]], list[list[str]]] = images, texts
        return [
            both[(place // self.callers + place) % 2][place % len(both[(place // self.callers + place) % 2])]
            for place in range(8 * self.callers)
        ]

    @property
    def _distinct_images(self) -> int:
        if self.again:
            return self.again
        return 12 if self.photo == PHONE else 64 if self.images > 1 or self.callers > 16 else 32


EIGHT = Load("8 callers", 8, images=1)
ONE = Load("1 caller", 1, images=1)
BATCH = Load("requests of 16", 1, images=16)
PHONES = Load("12 megapixels, 8 callers", 8, images=1, photo=PHONE)
TEXT_ONE = Load("texts, 1 caller", 1, texts=1)
TEXT_EIGHT = Load("texts, 8 callers", 8, texts=1)
TEXT_MANY = Load("texts, 64 callers", 64, texts=1)
TEXT_LISTS = Load("lists of 256 texts", 1, texts=256)
MIXED = Load("an image and a text in turn, 8 callers", 8, images=1, texts=1)
IMAGES_AGAIN = Load("the same 8 images again, 8 callers", 8, images=1, again=8)
TEXTS_AGAIN = Load("the same 64 texts again, 8 callers", 8, texts=1, again=64)
LOADS = (
    *(ONE, Load("4 callers", 4, images=1), EIGHT, Load("16 callers", 16, images=1), Load("64 callers", 64, images=1)),
    *(BATCH, Load("requests of 64", 1, images=64)),
    Load("640x427, 8 callers", 8, images=1, photo=WEB),
    PHONES,
    Load("PNG, 8 callers", 8, images=1, photo=PNG),
    Load("WebP, 8 callers", 8, images=1, photo=WEBP),
    *(TEXT_ONE, TEXT_EIGHT, TEXT_MANY, TEXT_LISTS, MIXED, IMAGES_AGAIN, TEXTS_AGAIN),
)


def _rotate(contents: Iterable[_One], size: int) -> list[list[_One]]:
    """Groups of `size`, each starting where the last ended; three or more where one takes all."""
    whole = list(contents)
    cycle = itertools.cycle(whole)
    return [list(itertools.islice(cycle, size)) for _ in range(max(3, len(whole) // size))]
