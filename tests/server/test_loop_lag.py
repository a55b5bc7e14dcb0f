"""What would take seconds to parse is refused before: the server's own measure of its loop says that nobody waited.

scripts/loop-lag sends far more of the kind, and holds /health/live to a tenth of a second.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from drills.lengthy import LENGTHY
from tests.support.server import ServerProcess
from tests.support.wire import Caller

#: Each took the parser 0.2 to 3 seconds, in which nothing else ran.
KINDS = {
    "JSON: 5 million keys": 413,
    "JSON: empty lists": 413,
    "JSON: 120 MB of blanks": 413,
    "texts: one of blanks": 400,
}
GENEROUS = 1.5


async def test_what_would_take_seconds_to_parse_stops_nobody(run_server: Callable[..., ServerProcess]) -> None:
    caller = Caller(int(run_server().ready().url.rpartition(":")[2]))

    async def send(kind: str) -> int | str:
        try:
            return (await caller.send(await asyncio.to_thread(LENGTHY[kind]), seconds=100)).status
        except ConnectionError:  # refused from its head alone, while it is still being sent
            return 413

    answers = await asyncio.gather(*map(send, KINDS))
    assert dict(zip(KINDS, answers, strict=True)) == KINDS
    await asyncio.sleep(0.3)
    text = (await caller.get("/metrics")).body.decode()
    (lag,) = [family for family in text_string_to_metric_families(text) if family.name == "clipsrv_loop_lag_seconds"]
    assert lag.samples[0].value < GENEROUS


def test_what_was_imported_is_not_looked_through_again_by_the_collector() -> None:
    program = """
import asyncio, gc
from clipsrv.config import Config
from clipsrv.errors import StartError
from clipsrv.server.lifecycle import serve
from tests.support.library import Given

def load(name):
    raise StartError(str(gc.get_freeze_count()))

try:
    asyncio.run(serve(Config(model="none", models_dir="nowhere", port=0), Given(load)))
except StartError as error:
    print(error.message)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert int(ran.stdout) > 10_000
