"""The engine that is this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clipsrv.bulk.engines.engine import Take
from clipsrv.bulk.records import Facts
from clipsrv.bulk.work.plan import Plan
from clipsrv.bulk.worker import Orders, Worker


class LocalEngine:
    """One worker on this machine. Raises ModelError, DeviceError or OutputError."""

    def __init__(self, orders: Orders) -> None:
        self._worker = Worker(orders)

    @property
    def facts(self) -> Facts:
        return self._worker.facts

    def run(self, plan: Plan, numbers: Sequence[int], take: Take, stop: Callable[[], bool]) -> bool:
        return all(self._worker.embed(number, plan.shard(number), take, stop) for number in numbers)

    def close(self) -> None:
        self._worker.close()
