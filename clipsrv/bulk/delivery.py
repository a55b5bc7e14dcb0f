"""Stretches of shards as an engine makes them, to the sink; a shard that is whole there is marked as done."""

from __future__ import annotations

from clipsrv.bulk.errors import BadImagesError
from clipsrv.bulk.progress import Progress
from clipsrv.bulk.records import BadFile, Refusal, Shard, Sink, bad_file
from clipsrv.bulk.work.marks import Marks
from clipsrv.bulk.work.place import Place
from clipsrv.bulk.work.plan import Plan


class Delivery:
    """Takes the stretches of one shard after another, each shard's in their order. `strict` ends the job at the first
    image that cannot be used."""

    def __init__(
        self, plan: Plan, sink: Sink, marks: Marks, place: Place, progress: Progress, *, strict: bool = False
    ) -> None:
        self.first_bad: BadFile | None = None
        self._plan, self._sink, self._marks = plan, sink, marks
        self._place, self._progress, self._strict = place, progress, strict
        self._number: int | None = None
        self._bad: list[BadFile] = []
        self._taken = 0

    def take(self, stretch: Shard) -> list[Refusal]:
        """The next stretch of the shard `stretch.number`; gives the rows that the sink cannot hold. Raises
        BadImagesError or OutputError."""
        if stretch.number != self._number:
            self._number, self._bad, self._taken = stretch.number, [], 0
            self._sink.begin(stretch.number)
        self._place.check()
        refused = self._sink.write(stretch) if stretch.rows else []
        rows = stretch.rows
        bad = [*stretch.bad, *(bad_file(rows[one.place], one.code, one.message) for one in refused)]
        self._look_at(bad)
        self._taken += len(rows) + len(stretch.bad)
        self._progress.advanced(len(rows) - len(refused), len(bad))
        if self._taken == self._plan.size(stretch.number):
            self._conclude(stretch.number)
        return refused

    def pass_over(self, number: int) -> None:
        """A shard without entries."""
        self._marks.write(number, [], {"rows": 0, "bad": 0})

    def _look_at(self, bad: list[BadFile]) -> None:
        self._bad += bad
        if bad:
            self.first_bad = self.first_bad or bad[0]
            if self._strict:
                raise BadImagesError(f"--strict: {bad[0].path} cannot be used. {bad[0].message}")

    def _conclude(self, number: int) -> None:
        self._sink.publish()
        self._place.check()
        self._marks.write(number, self._bad, {"rows": self._taken - len(self._bad), "bad": len(self._bad)})
        self._number = None
        self._progress.shard_done(number)
