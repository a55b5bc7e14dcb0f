"""What an engine must do. Data and words only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from clipsrv.bulk.records import Facts, Refusal, Shard
from clipsrv.bulk.work.plan import Plan

Take = Callable[[Shard], list[Refusal]]


class Engine(Protocol):
    """Has its model ready, or knows that those who will work have it."""

    @property
    def facts(self) -> Facts:
        """Of the vectors that it makes."""

    def run(self, plan: Plan, numbers: Sequence[int], take: Take, stop: Callable[[], bool]) -> bool:
        """Gives the stretches of the shards `numbers` to `take`, shard by shard and in their order; False if `stop`
        ended it before. Raises StartError or EngineError, and what `take` raises."""

    def close(self) -> None:
        """Ends what it started."""
