"""What came of embedding: one item, or all of a request."""

from __future__ import annotations

from dataclasses import dataclass, field

from clipsrv.errors import BadImage
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors


@dataclass
class Timings:
    """Where time went, in seconds; of a request, the longest of its items in each stage. `queue` is both waits, for a
    thread that decodes and for a batch; `cache` is looking whether the vector is known. Of a request, how many were
    (`hits`) and were not (`misses`); neither where there is no cache."""

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    cache: float = 0.0
    hits: int = 0
    misses: int = 0

    def add(self, other: Timings) -> None:
        self.decode = max(self.decode, other.decode)
        self.queue = max(self.queue, other.queue)
        self.inference = max(self.inference, other.inference)
        self.cache = max(self.cache, other.cache)
        self.hits += other.hits
        self.misses += other.misses


@dataclass(frozen=True)
class Finished:
    """One item: its vector (dimensions,), and of a text whether it was `truncated` and of an `unknown_script`, and how
    many `tokens` of it were read, marks included."""

    vector: Vectors
    timings: Timings
    truncated: bool = False
    unknown_script: bool = False
    tokens: int = 0


@dataclass(frozen=True)
class Outcome:
    """`vectors` in the order asked, None where `bad` says why; `truncated` are the indices of texts cut short,
    `unknown_script` of those whose letters the model's languages do not use; `tokens` how many were read of all texts.
    `model` is the one that made them, whatever is served by now, and `name` the one it is served by."""

    name: str
    model: Model
    vectors: list[Vectors | None]
    timings: Timings = field(default_factory=Timings)
    bad: tuple[BadImage, ...] = ()
    truncated: tuple[int, ...] = ()
    unknown_script: tuple[int, ...] = ()
    tokens: int = 0
