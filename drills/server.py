"""A server of the small test model whose encoder fails now and then, or leaks: what chaos and soak run against.

python -m drills.server PORT [--trouble 0.05] [--leak BYTES]
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsrv.config import Config
from clipsrv.server.http.rounds import run
from clipsrv.server.lifecycle import serve
from clipsrv.server.logs import set_up
from tests.support.faulty import FaultyEncoder
from tests.support.library import Given
from tests.support.model import NAME, make_model

DEFAULTS = Config(model=NAME, models_dir="nowhere")
USUAL = replace(
    DEFAULTS,
    header_timeout=2.0,
    body_timeout=5.0,
    probe_after=5.0,
    grace=10.0,
    max_queue=128,
)
SMALL = replace(
    USUAL,
    max_body_bytes=8 * 2**20,
    max_image_bytes=8 * 2**20,
    max_bytes_in_flight=64 * 2**20,
    max_pixels=16_000_000,
    max_pixels_in_flight=20_000_000,
    max_connections=256,
)


class TroubledEncoder(FaultyEncoder):
    """Raises, gives nonsense, runs out of memory or is slow, each in `trouble` of all batches; keeps `leak` bytes
    of every image for ever."""

    def __init__(self, trouble: float, leak: int) -> None:
        super().__init__()
        self._trouble, self._leak, self._random = trouble, leak, random.Random(11)
        self._kept: list[bytes] = []

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if self._leak:
            self._kept.append(os.urandom(self._leak * len(batch)))
        features = super().features(batch)
        fate = int(self._random.random() / self._trouble) if self._trouble else 9
        if fate == 0:
            raise RuntimeError("planted failure")
        if fate == 1:
            raise MemoryError("planted want of memory")
        if fate == 2:
            features[self._random.randrange(len(features))] = np.nan
        if fate == 3:
            time.sleep(0.2)
        return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--trouble", type=float, default=0.0)
    parser.add_argument("--defaults", action="store_true", help="limits and times as they are without any setting")
    parser.add_argument("--small", action="store_true", help="limits for a machine of little memory")
    parser.add_argument("--leak", type=int, default=0)
    parser.add_argument("--cache-bytes", type=int, default=0, help="0, so that what is sent again is computed again")
    arguments = parser.parse_args()
    config = SMALL if arguments.small else DEFAULTS if arguments.defaults else USUAL
    config = replace(config, port=arguments.port, cache_bytes=arguments.cache_bytes)
    set_up("critical" if arguments.trouble else "warning", "text")
    library = Given(lambda name: make_model(TroubledEncoder(arguments.trouble, arguments.leak)))
    run(serve(config, library))
    os._exit(0)


if __name__ == "__main__":
    main()
