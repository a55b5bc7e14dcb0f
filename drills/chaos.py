"""Good, bad, slow, cut and hostile callers at once, signals and failing inference, for a given time: what came of it.

python -m drills.chaos SECONDS [--seed N]. Every good answer is compared with the truth. Exit status 1 if one
was wrong or lost, if anything was answered that api.md does not allow, or if the server did not stop as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from random import Random

import numpy as np

from drills.inputs import IMAGE, GoodImages, bad_images, bad_requests
from drills.process import Target
from tests.support.wire import BOUNDARY, Reply, form, part, request

#: What a good request may be told beside 200, and a bad one beside its own 4xx.
_BUSY = {429, 503, 504}
_GONE = (OSError, TimeoutError, asyncio.IncompleteReadError)


class Chaos:
    def __init__(self, target: Target, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._target, self._random = target, Random(seed)
        self._images = GoodImages(120)

    async def good_caller(self) -> None:
        """Single images and batches; the answer must be the truth."""
        numbers = self._random.choices(range(len(self._images)), k=self._random.choice((1, 1, 1, 5)))
        blobs = [self._images.blobs[number] for number in numbers]
        if len(blobs) == 1:
            data = request("POST", "/embed", blobs[0], IMAGE)
        else:
            body = form(*[part(blob, "images") for blob in blobs])
            data = request("POST", "/embed/batch", body, f"Content-Type: multipart/form-data; boundary={BOUNDARY}")
        reply = await self._ask("good", data)
        if reply is None or reply.status in _BUSY:
            return
        if reply.status != 200:
            self.problems.append(f"good image {numbers} was answered {reply.status} {reply.body[:200]!r}")
            return
        vectors = [reply.json["embedding"]] if len(numbers) == 1 else reply.json["embeddings"]
        truths = [self._images.truths[number] for number in numbers]
        if len(vectors) != len(truths) or not np.allclose(vectors, truths, atol=1e-6):
            self.problems.append(f"wrong vector for {numbers}")

    async def bad_caller(self) -> None:
        kind, blob = self._random.choice(list(bad_images(self._random).items()))
        reply = await self._ask(f"bad image: {kind}", request("POST", "/embed", blob, IMAGE))
        if reply is not None and reply.status not in {200, 422, *_BUSY}:
            self.problems.append(f"bad image ({kind}) was answered {reply.status}")

    async def hostile_caller(self) -> None:
        kind, data = self._random.choice(list(bad_requests(self._random).items()))
        began = time.monotonic()
        try:
            reply = await self._target.send(data, seconds=20)
        except _GONE:
            # Many of these are not complete, and the server may hang up on what it cannot answer.
            self.counts[f"hostile: {kind}: closed"] += 1
            if time.monotonic() - began > 15:
                self.problems.append(f"hostile ({kind}) was left hanging")
            return
        self.counts[f"hostile: {kind}: {reply.status}"] += 1
        if reply.status >= 500 and reply.status not in _BUSY:
            self.problems.append(f"hostile ({kind}) was answered {reply.status}")

    async def slow_caller(self) -> None:
        """Sends a good request a few bytes at a time, until it is answered, or told 408, or closed."""
        data = request("POST", "/embed", self._images.blobs[0], IMAGE)
        step = self._random.choice((1, 50, 400))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
            ended = asyncio.create_task(reader.read(64))
            for at in range(0, len(data), step):
                if ended.done():
                    break
                writer.write(data[at : at + step])
                await asyncio.sleep(0.1)
            answer = await asyncio.wait_for(ended, 20)
            writer.close()
        except _GONE:
            answer = b""
        self.counts[f"slow: {answer[9:12].decode() or 'closed'}"] += 1

    async def cut_caller(self) -> None:
        """Hangs up in the middle of sending, or of waiting."""
        data = request("POST", "/embed", self._random.choice(self._images.blobs), IMAGE)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
            writer.write(data[: self._random.randrange(1, len(data) + 1)])
            await asyncio.sleep(self._random.random() / 20)
            writer.transport.abort()
        except OSError:
            pass
        self.counts["cut"] += 1

    async def signals(self, until: float, pause: float) -> None:
        """Stops, kills and freezes the server in turn, and starts it again."""
        for number in range(1000):
            await asyncio.sleep(pause)
            if time.monotonic() + 10 > until:
                return
            if number % 3 == 2:
                await self._target.pause(1.0)
            else:
                await self._target.stop(signal.SIGKILL if number % 3 else signal.SIGTERM)
                await self._target.start()
            self.counts["signals"] += 1

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        callers = [self.good_caller] * 6 + [self.bad_caller] * 2 + [self.hostile_caller] * 2
        callers += [self.slow_caller] * 3 + [self.cut_caller] * 2

        async def keep_on(index: int) -> None:
            while time.monotonic() < until:
                await callers[index]()
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            for index in range(len(callers)):
                group.create_task(keep_on(index))
            group.create_task(self.signals(until, max(3.0, seconds / 20)))

    async def _ask(self, kind: str, data: bytes) -> Reply | None:
        sent = time.monotonic()
        try:
            reply = await self._target.send(data)
        except _GONE as error:
            excused = self._target.excuses(sent, time.monotonic())
            self.counts[f"{kind}: server not there" if excused else f"{kind}: lost"] += 1
            if not excused:
                self.problems.append(f"{kind} request lost: {type(error).__name__}: {error}")
            return None
        self.counts[f"{kind}: {reply.status}"] += 1
        return reply


async def attack(seconds: float, seed: int, cache_bytes: int) -> int:
    target = Target("--trouble", "0.01", "--cache-bytes", str(cache_bytes))
    chaos = Chaos(target, seed)
    await target.start()
    await chaos.run(seconds)
    healthy = await target.healthy()
    await target.stop(signal.SIGTERM)
    stops = [exit_ for exit_ in target.exits if exit_[0] != -signal.SIGKILL]
    if not healthy or any(status or took > 20 for status, took in stops):
        chaos.problems.append(f"healthy at the end: {healthy}; (status, seconds) of stops: {stops}")
    for kind in sorted(chaos.counts):
        print(f"{chaos.counts[kind]:8}  {kind}")
    good = chaos.counts["good: 200"]
    print(
        json.dumps(
            {"seconds": seconds, "good answers": good, "problems": len(chaos.problems), "first": chaos.problems[:5]}
        )
    )
    return 1 if chaos.problems or not good else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache-bytes", type=int, default=0, help="0, so that what is sent again is computed again")
    options = parser.parse_args()
    sys.exit(asyncio.run(attack(options.seconds, options.seed, options.cache_bytes)))
