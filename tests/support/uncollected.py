"""A server of the small model in a process where the cyclic collector never runs, so that whatever it would have to
collect is seen to stay. What an image's last bytes say happens to it.

python -m tests.support.uncollected
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import Any

from clipsrv.config import Config
from clipsrv.models.model import Model
from clipsrv.server.lifecycle import serve
from clipsrv.server.logs import set_up
from tests.support.faulty import FaultyEncoder
from tests.support.library import Given
from tests.support.model import NAME, make_model

MIB = 2**20
SETTINGS = Config(
    model=NAME,
    models_dir="nowhere",
    port=0,
    decode_threads=2,
    max_body_bytes=12 * MIB,
    max_batch_size=2,
    max_queue=8,
    max_images=8,
    max_queue_per_caller=8,
    header_timeout=0.5,
    deadline=1.0,
    probe_after=1000.0,
)
#: The last bytes of an image that meets a fault, and the seconds it takes there.
NO_MEMORY, BUG, SLOW_TO_READ, FAILS, SLOW_TO_COMPUTE = b"no memory", b"bug", b"slow read", b"fails", b"slow compute"
SECONDS = 1.3


class Fated(Model):
    """Reads an image as its last bytes say. What must fail in the tower is marked by a value that no image has."""

    def read_image(self, image: Any, *arguments: Any, **options: Any) -> Any:
        end = bytes(image[-20:])
        if end.endswith(NO_MEMORY):
            raise MemoryError
        if end.endswith(BUG):
            raise LookupError("nobody foresaw this")
        if end.endswith(SLOW_TO_READ):
            time.sleep(SECONDS)
        pixels = super().read_image(image, *arguments, **options)
        if end.endswith(FAILS):
            pixels[0, 0, 0] = 1000
        if end.endswith(SLOW_TO_COMPUTE):
            pixels[0, 0, 0] = 2000
        return pixels


class Tower(FaultyEncoder):
    def features(self, batch: Any) -> Any:
        if (batch[:, 0, 0, 0] == 1000).any():
            raise RuntimeError("native code failed")
        if (batch[:, 0, 0, 0] == 2000).any():
            time.sleep(SECONDS)
        return super().features(batch)


if __name__ == "__main__":
    gc.disable()
    set_up("info", "text")
    asyncio.run(serve(SETTINGS, Given(lambda name: Fated(**vars(make_model(Tower()))))))
    os._exit(0)
