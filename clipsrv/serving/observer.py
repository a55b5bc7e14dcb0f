"""What the work tells whoever counts it. The base class counts nothing; the server's metrics fill it in.

Knows nothing of Prometheus or HTTP. Methods must be quick and must not raise: they are called on the hot path.
"""

from __future__ import annotations

#: What came of looking for a vector: it was kept, it is computed for this item, or somebody else has it computed now.
HIT, MISS, SHARED = "hit", "miss", "shared"


class Observer:
    """Seconds and sizes as they happen, on the event loop. Override what is of interest."""

    def decoded(self, seconds: float) -> None:
        """One image was decoded and preprocessed."""

    def tokenized(self, seconds: float) -> None:
        """One text was turned into token ids."""

    def met_unknown_script(self) -> None:
        """One text had no letter of a script that its model's languages are written in."""

    def waited(self, seconds: float) -> None:
        """One item left the queue."""

    def computed(self, seconds: float, size: int) -> None:
        """One batch of `size` was inferred."""

    def embedded(self, model: str, size: int, seconds: float) -> None:
        """`size` items of a model were inferred in `seconds`."""

    def looked_up(self, outcome: str) -> None:
        """One item was looked for among the vectors kept: HIT, MISS or SHARED."""

    def evicted(self, count: int) -> None:
        """So many vectors made room for another."""

    def loaded(self, model: str, *, done: bool) -> None:
        """A model was loaded, or could not be."""

    def failed(self, code: str) -> None:
        """One inference failed, down to a single item; `code` is the error's."""

    def abandoned(self, stage: str) -> None:
        """Nobody waits any more for one item in `stage`: queue or compute."""
