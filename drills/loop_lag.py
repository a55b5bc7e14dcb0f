"""Whether anything a caller can send holds up everyone else: /health/live, asked all the time beside it.

python -m drills.loop_lag [--seconds S] [--limit SECONDS]. Each kind of lengthy request alone for S seconds, then all at
once for five times as long, from a process of its own that gives way to the server. Exit status 1 if an answer of
/health/live, or the server's own event loop, was later than the limit, 0.1 s, or if it was not healthy at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from collections import Counter

from drills.lengthy import LENGTHY
from drills.process import Target
from tests.support.wire import Caller, read_reply, request

_LIVE = request("GET", "/health/live", None)
_LAG = re.compile(rb"^clipsrv_loop_lag_seconds (\S+)", re.MULTILINE)
#: Seconds for which the server remembers how late its loop was.
_MEMORY = 15.0
#: Callers of a kind that attacks alone.
_CALLERS = 2


async def attack(port: int, kinds: list[str], seconds: float) -> Counter[str]:
    """Sends requests of these kinds without a pause; the statuses of the answers."""
    caller, answers, bodies = Caller(port), Counter[str](), [LENGTHY[kind]() for kind in kinds]
    print("ready", flush=True)
    until = time.monotonic() + seconds

    async def send(data: bytes) -> None:
        while time.monotonic() < until:
            try:
                answers[str((await caller.send(data, seconds=60)).status)] += 1
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                answers["closed"] += 1

    await asyncio.gather(
        asyncio.sleep(seconds), *(send(data) for data in bodies for _ in range(1 if len(bodies) > 1 else _CALLERS))
    )
    return answers


async def watch(port: int, attacker: asyncio.subprocess.Process) -> tuple[float, int]:
    """The longest time /health/live took until the attacker ended, and how many times it was asked."""
    reader, writer = await Caller(port).connect()
    slowest, asked = 0.0, 0
    while attacker.returncode is None:
        began = time.monotonic()
        writer.write(_LIVE)
        assert (await read_reply(reader)).status == 200
        slowest, asked = max(slowest, time.monotonic() - began), asked + 1
        await asyncio.sleep(0.005)
    writer.close()
    return slowest, asked


async def lag_seen_by(target: Target) -> float:
    """How late the server's own event loop was in the last 15 seconds."""
    found = _LAG.search((await target.get("/metrics")).body)
    assert found
    return float(found[1])


async def stage(target: Target, kinds: list[str], seconds: float) -> tuple[float, str]:
    command = (sys.executable, "-m", "drills.loop_lag", "--attack", str(target.port), "--seconds", str(seconds))
    attacker = await asyncio.create_subprocess_exec(*command, *kinds, stdout=asyncio.subprocess.PIPE)
    assert attacker.stdout is not None
    assert await attacker.stdout.readline() == b"ready\n"
    collecting = asyncio.create_task(attacker.communicate())
    slowest, asked = await watch(target.port, attacker)
    output, _ = await collecting
    return slowest, f"answers {output.decode().strip()}, of /health/live {asked}"


async def run(seconds: float, limit: float) -> int:
    target, late, lag = Target("--defaults"), dict[str, float](), 0.0
    await target.start()
    await asyncio.sleep(_MEMORY)  # what it took to open the model is nobody's attack
    stages = {"nobody attacks": [], **{kind: [kind] for kind in LENGTHY}, "all at once": list(LENGTHY)}
    for title, kinds in stages.items():
        slowest, facts = await stage(target, kinds, 5 * seconds if len(kinds) > 1 else seconds)
        lag = max(lag, await lag_seen_by(target))
        print(f"{title:32} {1000 * slowest:5.0f} ms, {facts}", flush=True)
        if slowest > limit:
            late[title] = slowest
    healthy = await target.healthy()
    await target.stop(signal.SIGTERM)
    print(
        f"later than {1000 * limit:.0f} ms: {', '.join(late) or 'none'}; worst lag the server saw {1000 * lag:.0f} ms"
    )
    return 0 if healthy and not late and lag <= limit else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--limit", type=float, default=0.1)
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("kinds", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack is None:
        return asyncio.run(run(arguments.seconds, arguments.limit))
    os.nice(19)
    print(json.dumps(asyncio.run(attack(arguments.attack, arguments.kinds, arguments.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
