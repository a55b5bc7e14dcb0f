"""Two workers behind one port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.workers.pair import Pair


@pytest.fixture(scope="module")
def started_pair(models_dir: Path) -> Iterator[Pair]:
    """See `pair`."""
    running = Pair(models_dir)
    yield running.all_ready()
    running.close()


@pytest.fixture
def pair(started_pair: Pair) -> Iterator[Pair]:
    """A server of two workers, one for every test that leaves two behind."""
    yield started_pair
    started_pair.hang_up()
