"""Descriptor 2, which native libraries write to by themselves, kept apart from the stderr that Python writes to.

Else a pipe that nobody reads stops a decoder for good, and lines that are not ours stand in the log.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time

logger = logging.getLogger("clipsrv")

#: Callers' images make libraries write: so often are they quoted at most.
_SECONDS_BETWEEN_QUOTES = 1.0
_AT_ONCE = 65_536


def set_apart() -> None:
    """From here on sys.stderr is a copy of descriptor 2, and what is written to the descriptor itself is read by a
    thread, which logs a line of it now and then. What finds no room is lost; nothing ever waits."""
    if sys.stderr is None:
        return
    sys.stderr.flush()
    own = open(os.dup(2), "w", 1, sys.stderr.encoding, sys.stderr.errors)  # noqa: SIM115 - for as long as we live
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.dup2(writer, 2)
    os.close(writer)
    sys.stderr = own
    if faulthandler.is_enabled():
        faulthandler.enable(own)
    threading.Thread(target=_quote, args=(reader,), name="stderr", daemon=True).start()


def _quote(reader: int) -> None:
    while written := os.read(reader, _AT_ONCE):
        first, *others = written.decode("utf-8", "replace").strip().splitlines() or [""]
        logger.info("a library wrote to stderr: %s (and %d lines more)", first, len(others))
        time.sleep(_SECONDS_BETWEEN_QUOTES)
