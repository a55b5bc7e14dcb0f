"""Memory over many images: resident bytes as images go through, and their slope.

python -m drills.soak IMAGES [--leak BYTES]. Six of ten images are good, three bad, one is given up. Exit
status 1 if memory grows by more than 100 bytes an image after warming up. `--leak` plants that many bytes an image in
the server: the control, which must fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import time
from random import Random

from drills.inputs import IMAGE, GoodImages, bad_images
from drills.process import Target
from tests.support.wire import BOUNDARY, form, part, read_reply, request

#: Bytes an image that are still taken for noise, and the part of the run that warms up.
_ALLOWED, _WARM_UP = 100, 0.3
_CALLERS, _BATCH = 6, 16


class Soak:
    def __init__(self, target: Target, images: int) -> None:
        self.sent = self.good = self.unexpected = 0
        self.samples: list[tuple[int, int]] = []
        self._target, self._count, self._random = target, images, Random(3)
        self._images = GoodImages(60)

    async def caller(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port, limit=2**24)
        while self.sent < self._count:
            fate = self._random.random()
            if fate < 0.1:
                writer.write(request("POST", "/embed", self._images.blobs[0], IMAGE))
                writer.transport.abort()
                reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port, limit=2**24)
                self.sent += 1
                continue
            if fate < 0.4:
                blobs = [self._random.choice(list(bad_images(self._random).values()))]
            else:
                blobs = self._random.choices(self._images.blobs, k=_BATCH)
            body = form(*[part(blob, "images") for blob in blobs])
            kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
            writer.write(request("POST", "/embed/batch", body, kind))
            reply = await read_reply(reader)
            self.sent += len(blobs)
            self.good += len(blobs) if reply.status == 200 else 0
            self.unexpected += reply.status not in {200, 422, 429}
        writer.close()

    async def watch(self) -> None:
        step = max(100, self._count // 200)
        while self.sent < self._count:
            if not self.samples or self.sent >= self.samples[-1][0] + step:
                self.samples.append((self.sent, self._target.resident()))
            await asyncio.sleep(0.02)

    def slope(self) -> float:
        """Bytes an image after warming up, by Theil and Sen: the median of the slopes of all pairs."""
        warm = [sample for sample in self.samples if sample[0] >= _WARM_UP * self._count]
        pairs = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(warm) for b in warm[i + 1 :] if b[0] > a[0]]
        return statistics.median(pairs)


async def run(images: int, leak: int) -> int:
    target = Target("--leak", str(leak))
    await target.start()
    soak, began = Soak(target, images), time.monotonic()
    await asyncio.gather(*(soak.caller() for _ in range(_CALLERS)), soak.watch())
    took = time.monotonic() - began
    slope, memory = soak.slope(), [resident for _, resident in soak.samples]
    await target.stop(signal.SIGTERM)
    for sent, resident in soak.samples[:: max(1, len(soak.samples) // 20)]:
        print(f"{sent:10,} images  {resident / 2**20:8.1f} MiB")
    facts = {
        "images": soak.sent,
        "good": soak.good,
        "unexpected answers": soak.unexpected,
        "images a second": round(soak.sent / took),
        "first MiB": round(memory[0] / 2**20, 1),
        "peak MiB": round(max(memory) / 2**20, 1),
        "last MiB": round(memory[-1] / 2**20, 1),
        "slope bytes an image": round(slope, 1),
        "exit status": target.exits[-1][0],
    }
    print(json.dumps(facts))
    return 1 if slope > _ALLOWED or soak.unexpected or target.exits[-1][0] else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int)
    parser.add_argument("--leak", type=int, default=0, help="bytes an image to leak, as a control")
    options = parser.parse_args()
    sys.exit(asyncio.run(run(options.images, options.leak)))
