"""Thousands of bad images and bad requests, one after the other, and what each kind was answered.

python -m drills.bad_inputs COUNT. Exit status 1 if anything was answered 5xx, left hanging, or if a good
image in between had another vector than the truth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter, defaultdict
from random import Random

import numpy as np

from drills.inputs import IMAGE, GoodImages, bad_images, bad_requests
from drills.process import Target
from tests.support.wire import request

_AT_ONCE = 8


class Trial:
    def __init__(self, target: Target, count: int) -> None:
        self.answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.sent = self.wrong = self.checked = 0
        self.slowest = 0.0
        self._target, self._count, self._good = target, count, GoodImages(20)

    async def caller(self, seed: int) -> None:
        random = Random(seed)
        while self.sent < self._count:
            batch = [
                (f"image: {kind}", request("POST", "/embed", blob, IMAGE)) for kind, blob in bad_images(random).items()
            ]
            batch += [(f"request: {kind}", data) for kind, data in bad_requests(random).items()]
            for kind, data in batch:
                began = time.monotonic()
                try:
                    answer = str((await self._target.send(data, seconds=30)).status)
                except TimeoutError:
                    answer = "hung"
                except (OSError, asyncio.IncompleteReadError):
                    answer = "closed"
                self.answers[kind][answer] += 1
                self.sent += 1
                if answer not in {"408", "closed"}:  # those wait for what the request promised, as they should
                    self.slowest = max(self.slowest, time.monotonic() - began)
            await self._check(random.randrange(len(self._good)))

    async def _check(self, number: int) -> None:
        reply = await self._target.send(request("POST", "/embed", self._good.blobs[number], IMAGE))
        self.checked += 1
        self.wrong += reply.status != 200 or not np.allclose(
            reply.json["embedding"], self._good.truths[number], atol=1e-6
        )


async def run(count: int) -> int:
    target = Target()
    await target.start()
    trial = Trial(target, count)
    await asyncio.gather(*(trial.caller(seed) for seed in range(_AT_ONCE)))
    healthy = await target.healthy()
    await target.stop(signal.SIGTERM)
    total: Counter[str] = Counter()
    for kind, answers in sorted(trial.answers.items()):
        print(f"{kind:28}", ", ".join(f"{answer}: {number}" for answer, number in sorted(answers.items())))
        total += answers
    unexpected = sum(number for answer, number in total.items() if answer.startswith("5") or answer == "hung")
    facts = {
        "sent": trial.sent,
        "kinds": len(trial.answers),
        "answers": dict(sorted(total.items())),
        "5xx or hung": unexpected,
        "good images checked": trial.checked,
        "wrong": trial.wrong,
        "slowest refusal, seconds": round(trial.slowest, 2),
        "healthy at the end": healthy,
    }
    print(json.dumps(facts))
    return 1 if unexpected or trial.wrong or not healthy else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    sys.exit(asyncio.run(run(parser.parse_args().count)))
