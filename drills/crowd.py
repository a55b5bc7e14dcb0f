"""A normal caller beside a crowd: slow connections, or a thousand at once.

python -m drills.crowd CONNECTIONS [--seconds S]. First alone, then beside CONNECTIONS that drip (half their
headers, half their body), then CONNECTIONS good requests in one moment. Exit status 1 if one of those is answered
neither 200 nor 429, or if the normal caller fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter

from drills.inputs import IMAGE, GoodImages
from drills.process import Target
from tests.support.wire import request


async def normal_caller(target: Target, good: GoodImages, seconds: float) -> list[float]:
    """Milliseconds of one request after the other, each on a connection of its own. Fails unless each is a 200."""
    took, until = list[float](), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        reply = await target.send(request("POST", "/embed", good.blobs[len(took) % len(good)], IMAGE))
        assert reply.status == 200, reply
        took.append(1000 * (time.monotonic() - began))
        await asyncio.sleep(0.02)
    return sorted(took)


async def slow_caller(target: Target, data: bytes) -> None:
    """A byte each half second, again and again on new connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            for at in range(len(data)):
                writer.write(data[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0.5)
        except OSError:
            await asyncio.sleep(0.1)


async def burst(target: Target, good: GoodImages, count: int) -> tuple[Counter[str], float]:
    """Answers to `count` good requests on as many connections in one moment, and the seconds until the last."""

    async def one(number: int) -> str:
        try:
            return str((await target.send(request("POST", "/embed", good.blobs[number % len(good)], IMAGE))).status)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            return type(error).__name__

    began = time.monotonic()
    answers = Counter(await asyncio.gather(*(one(number) for number in range(count))))
    return answers, time.monotonic() - began


def summary(took: list[float]) -> dict[str, float]:
    return {
        "requests": len(took),
        "p50 ms": round(took[len(took) // 2], 1),
        "p99 ms": round(took[int(0.99 * len(took))], 1),
        "max ms": round(took[-1], 1),
    }


async def run(connections: int, seconds: float) -> int:
    target, good = Target(), GoodImages(30)
    await target.start()
    before = target.resident()
    print("alone        ", json.dumps(summary(await normal_caller(target, good, seconds))))
    whole = request("POST", "/embed", good.blobs[0], IMAGE)
    body_at = whole.index(b"\r\n\r\n") + 4
    halves = (whole[:body_at], whole[body_at:])
    slow = [
        asyncio.create_task(slow_caller(target, halves[number % 2] if number % 2 == 0 else whole))
        for number in range(connections)
    ]
    await asyncio.sleep(1)
    print(f"beside {connections:6}", json.dumps(summary(await normal_caller(target, good, seconds))))
    print("memory MiB   ", round((target.resident() - before) / 2**20, 1))
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    await asyncio.sleep(3)
    answers, took = await burst(target, good, connections)
    print(f"{connections} at once", json.dumps({**answers, "seconds": round(took, 2)}))
    await target.stop(signal.SIGTERM)
    return 0 if set(answers) <= {"200", "429"} and target.exits[-1][0] == 0 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("connections", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    sys.exit(asyncio.run(run(options.connections, options.seconds)))
