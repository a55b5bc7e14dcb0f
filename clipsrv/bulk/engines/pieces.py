"""Pieces of a shard's list, and the worker in an actor that makes of each a table of rows: a vector, or an error."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Counter

from clipsrv.bulk.records import BadFile, Entry, Facts, Refusal, Row, Shard
from clipsrv.bulk.work.plan import Plan
from clipsrv.bulk.worker import Orders, Worker
from clipsrv.errors import ClipsrvError, EngineError, ModelError, StartError

#: Stretches of a piece: enough that the actor's last batches, which keep fewer cores busy, do not count for much.
_STRETCHES = 4
#: The column of what ends the job, and which errors those are.
_FAILURE, _ENDS_THE_JOB = "failure", (StartError, EngineError)
_ROW, _BAD = ([item.name for item in fields(kind)] for kind in (Row, BadFile))


class Piece(NamedTuple):
    """`size` entries of the shard `number`, from its place `start` on."""

    number: int
    start: int
    size: int


def cut(plan: Plan, numbers: Sequence[int], stretch: int) -> list[Piece]:
    """The shards `numbers` in whole stretches, so that batches are cut as in a run on one machine."""
    length = _STRETCHES * stretch
    return [
        Piece(number, start, min(length, plan.size(number) - start))
        for number in numbers
        for start in range(0, plan.size(number), length)
    ]


class Pieces:
    """A worker in an actor of Ray Data; called with a table of one piece. What the worker raises, or ModelError if its
    vectors are not those of `facts`, is for `rows_of` to raise: of an error Ray Data brings the text only."""

    def __init__(self, orders: Orders, plan: Plan, facts: Facts) -> None:
        self._failure: ClipsrvError | None = None
        try:
            self._open(orders, plan, facts)
        except _ENDS_THE_JOB as error:
            self._failure = error

    def __call__(self, table: Any) -> Any:
        try:
            if self._failure:
                raise self._failure
            return self._embed(table)
        except _ENDS_THE_JOB as error:
            return pa.table({_FAILURE: [pickle.dumps((type(error), error.message))]})

    def _open(self, orders: Orders, plan: Plan, facts: Facts) -> None:
        if orders.directory and os.path.isdir(orders.directory):
            os.chdir(orders.directory)  # paths are relative to where the driver was started
        self._plan, self._worker = plan, Worker(orders)
        self._images = Counter("clipsrv_images_total", "Images dealt with.", tag_keys=("outcome",))
        if different := [name for name in facts if self._worker.facts.get(name) != facts[name]]:
            name = different[0]
            raise ModelError(
                f"This node makes vectors of another {name} ({self._worker.facts.get(name)}) than the job "
                f"({facts[name]}): give --device and --precision, so that all nodes make the same."
            )

    def _embed(self, table: Any) -> Any:
        made: list[Shard] = []

        def take(stretch: Shard) -> list[Refusal]:
            made.append(stretch)
            return []

        for piece in (Piece(**row) for row in table.to_pylist()):
            self._worker.embed(piece.number, _Part(self._plan, piece), take)
        for outcome, count in (
            ("vector", sum(len(one.rows) for one in made)),
            ("error", sum(len(one.bad) for one in made)),
        ):
            if count:
                self._images.inc(count, {"outcome": outcome})
        return _table(made)


@dataclass(frozen=True)
class _Part:
    """The entries of a piece."""

    plan: Plan
    piece: Piece

    @property
    def count(self) -> int:
        return self.piece.size

    def entries(self, start: int = 0) -> Iterator[Entry | BadFile]:
        return self.plan.shard(self.piece.number).entries(self.piece.start + start, self.piece.size - start)


def rows_of(table: Any) -> Shard:
    """What `Pieces` made: the rows and the bad images of stretches of one shard, as one. Raises what ended it there."""
    if _FAILURE in table.column_names:
        kind, message = pickle.loads(table.column(_FAILURE)[0].as_py())
        raise kind(message)
    bad = table.column("code").is_valid()
    good = table.filter(pc.invert(bad)).combine_chunks()
    length = table.schema.field("embedding").type.list_size
    flat = good.column("embedding").combine_chunks().flatten() if good.num_rows else pa.array([], pa.float32())
    rows = [Row(*values) for values in zip(*(good.column(name).to_pylist() for name in _ROW), strict=True)]
    wrong = table.filter(bad)
    return Shard(
        table.column("number")[0].as_py(),
        rows,
        np.asarray(flat, np.float32).reshape(len(rows), length),
        [BadFile(*values) for values in zip(*(wrong.column(name).to_pylist() for name in _BAD), strict=True)],
    )


def _table(stretches: Sequence[Shard]) -> Any:
    """Columns number, id, path, sha256 and embedding; of a bad image code and message in the place of the last two."""
    rows = [row for stretch in stretches for row in stretch.rows]
    bad = [one for stretch in stretches for one in stretch.bad]
    vectors = np.concatenate([stretch.vectors for stretch in stretches])
    kind = pa.list_(pa.float32(), vectors.shape[1])
    good = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)
    texts = [(*astuple(row), None, None) for row in rows]
    texts += [(one.id, one.path, None, one.code, one.message) for one in bad]
    names = [*_ROW, "code", "message"]
    columns = {
        name: pa.array(column, pa.string()) for name, column in zip(names, zip(*texts, strict=True), strict=True)
    }
    columns["embedding"] = pa.concat_arrays([good, pa.nulls(len(bad), kind)])
    columns["number"] = pa.array([stretches[0].number] * len(texts), pa.int64())
    return pa.table(columns)
