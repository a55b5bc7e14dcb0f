"""What tests of the whole server share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from clipsrv.server.logs import LogPump


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """The root logger is afterwards as it was before."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    pillow = logging.getLogger("PIL").level
    yield
    for handler in root.handlers:
        if isinstance(handler, LogPump):
            handler.close()
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    logging.getLogger("PIL").setLevel(pillow)
    logging.captureWarnings(False)
