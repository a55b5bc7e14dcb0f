"""Where in an index an id stands. Knows nothing of vectors."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from clipsrv.search.held import Held


class Rows:
    """The rows of a Held by the ids of their items. Takes 16 bytes a row in memory, and to be made a look at each."""

    def __init__(self, held: Held) -> None:
        """Raises UnusableIndexError."""
        self._held = held
        hashes = np.fromiter((_hash(held.item(row).id) for row in range(len(held))), np.uint64, len(held))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, id: str) -> int | None:
        """The first row of an id, None if there is none. Raises UnusableIndexError."""
        wanted = np.uint64(_hash(id))
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        rows = map(int, self._order[first:last])
        return next((row for row in rows if self._held.item(row).id == id), None)


def _hash(id: str) -> int:
    return int.from_bytes(blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
