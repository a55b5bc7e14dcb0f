"""The job itself: entries to shards, decoding in parallel with inference. Knows no file format and no database.

Inference runs in streams: several batches at once, each on few threads. For a job that wants images a second and no
quick answer that beats one batch on all cores, whose threads wait for one another after every operator. A shard is a
fixed stretch of the list, and batches are cut within it, so a job that was interrupted computes exactly what an
uninterrupted one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipsrv.ahead import in_order
from clipsrv.bulk.errors import BadImagesError, GivenUpError
from clipsrv.bulk.prepare import FetchingPreparer, Prepared, Preparer
from clipsrv.bulk.records import BadFile, Entry, Row, Shard, Store, bad_file
from clipsrv.images.budget import PixelBudget
from clipsrv.models.model import Model
from clipsrv.runtime.vectors import Vectors

#: Bytes of images that are on their way or wait to be decoded.
_FETCHED_AHEAD = 512 << 20


@dataclass(frozen=True)
class JobSettings:
    """`shard_size` entries are stored together; `streams` batches are computed at once; `strict` ends the job at the
    first shard with a bad image. `fetch_threads` wait for images that lie elsewhere; 0: none does."""

    shard_size: int
    max_batch_size: int
    decode_threads: int
    streams: int = 1
    fetch_threads: int = 0
    strict: bool = False


class Listed(Protocol):
    """Entries that are read as they are asked for, the same each time."""

    @property
    def count(self) -> int: ...

    def entries(self, start: int = 0) -> Iterator[Entry | BadFile]:
        """Entries from place `start` on."""


class Observer(Protocol):
    """Told what happens, in the job's own thread."""

    def begun(self, total: int, done: int) -> None:
        """Of `total` entries `done` need no work."""

    def advanced(self) -> None:
        """One entry more is dealt with."""

    def found_bad(self, bad: BadFile) -> None:
        """An image that cannot be used, from now or from before."""


@dataclass
class Summary:
    """Counts of this run. `duplicates` share a vector with an image before them; `stored` were there before;
    `first_bad` is the first of the `bad`."""

    embedded: int = 0
    duplicates: int = 0
    stored: int = 0
    bad: int = 0
    first_bad: BadFile | None = None
    interrupted: bool = False

    @property
    def usable(self) -> int:
        """How many images have their row."""
        return self.embedded + self.duplicates + self.stored


class Job:
    """Runs once. `stop` is asked after every shard."""

    def __init__(
        self, model: Model, prepare: Preparer, store: Store, settings: JobSettings, observer: Observer
    ) -> None:
        self._model, self._prepare, self._store = model, prepare, store
        self._settings, self._observer = settings, observer

    def run(self, listing: Listed, stop: Callable[[], bool]) -> Summary:
        """Stores every entry that is not stored yet. Raises BadImagesError, OutputError or EngineError."""
        summary, settings = Summary(), self._settings
        done = min(self._store.shards_done * settings.shard_size, listing.count)
        self._observer.begun(listing.count, done)
        self._report_bad(self._store.bad_before(), summary)
        summary.stored = done - summary.bad
        # Enough that a batch is ready when the one before it is computed, and while a shard is written.
        ahead = settings.decode_threads + (1 + settings.streams) * settings.max_batch_size
        with (
            ThreadPoolExecutor(settings.streams, thread_name_prefix="infer") as streams,
            ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode") as decoders,
            ThreadPoolExecutor(max(1, settings.fetch_threads), thread_name_prefix="fetch") as fetchers,
            closing(
                in_order(
                    fetchers,
                    FetchingPreparer(self._prepare, decoders, PixelBudget(_FETCHED_AHEAD)),
                    listing.entries(done),
                    ahead + settings.fetch_threads,
                )
                if settings.fetch_threads
                else in_order(decoders, self._prepare, listing.entries(done), ahead)
            ) as prepared,
        ):
            for number in range(self._store.shards_done, -(-listing.count // settings.shard_size)):
                if stop():
                    summary.interrupted = True
                    break
                work = _ShardInWork(self._model, settings, self._store, self._prepare, streams)
                try:
                    self._run_shard(number, islice(prepared, settings.shard_size), work, summary)
                except GivenUpError:
                    summary.interrupted = True
                    break
        return summary

    def _run_shard(self, number: int, entries: Iterator[Prepared], work: _ShardInWork, summary: Summary) -> None:
        for prepared in entries:
            work.add(prepared)
            self._observer.advanced()
        self._report_bad(iter(work.bad), summary)
        refused = self._store.write(work.finish(number))
        computed = work.computed.difference(refusal.place for refusal in refused)
        summary.embedded += len(computed)
        summary.duplicates += len(work.rows) - len(refused) - len(computed)
        summary.stored += work.stored
        self._report_bad((bad_file(work.rows[one.place], one.code, one.message) for one in refused), summary)

    def _report_bad(self, found: Iterator[BadFile], summary: Summary) -> None:
        first = None
        for bad in found:
            first = first or bad
            self._observer.found_bad(bad)
            summary.bad += 1
        summary.first_bad = summary.first_bad or first
        if first and self._settings.strict:
            raise BadImagesError(f"--strict: {first.path} cannot be used. {first.message}")


class _ShardInWork:
    """Rows of one shard as they come, and their vectors as batches fill."""

    def __init__(
        self, model: Model, settings: JobSettings, store: Store, prepare: Preparer, streams: ThreadPoolExecutor
    ) -> None:
        self.rows: list[Row] = []
        self.bad: list[BadFile] = []
        self.computed: set[int] = set()  # places of rows whose vector is no copy
        self.stored = 0
        self._model, self._settings, self._store, self._prepare = model, settings, store, prepare
        self._streams = streams
        self._vectors = np.empty((settings.shard_size, model.manifest.dimensions), np.float32)
        self._batch: list[tuple[int, NDArray[np.float32]]] = []
        self._computing: deque[tuple[list[int], Future[Vectors]]] = deque()
        self._places: dict[str, int] = {}  # where in this shard each content was first met
        self._copies: list[tuple[int, int]] = []

    def add(self, prepared: Prepared) -> None:
        """Takes the next entry; has a batch computed if that fills one."""
        if prepared.bad is not None:
            self.bad.append(prepared.bad)
        elif prepared.stored:
            self.stored += 1
        elif prepared.sha256 in self._places:
            self._copies.append((self._add_row(prepared), self._places[prepared.sha256]))
        elif (vector := self._store.vector(prepared.sha256)) is not None:
            self._vectors[self._add_row(prepared)] = vector
        elif prepared.pixels is None:
            # The image that had this content has since been stored anew under its id with another.
            self.add(self._prepare(prepared.entry, always=True))
        else:
            place = self._places[prepared.sha256] = self._add_row(prepared)
            self._batch.append((place, prepared.pixels))
            if len(self._batch) == self._settings.max_batch_size:
                self._compute()

    def finish(self, number: int) -> Shard:
        """The whole shard."""
        if self._batch:
            self._compute()
        while self._computing:
            self._take()
        for place, source in self._copies:
            self._vectors[place] = self._vectors[source]
        return Shard(number, self.rows, self._vectors[: len(self.rows)], self.bad)

    def _add_row(self, prepared: Prepared) -> int:
        self.rows.append(Row(prepared.entry.id, prepared.entry.path, prepared.sha256))
        return len(self.rows) - 1

    def _compute(self) -> None:
        places, pixels = zip(*self._batch, strict=True)
        self._computing.append((list(places), self._streams.submit(self._model.image_encoder.embed, np.stack(pixels))))
        self._batch.clear()
        if len(self._computing) > self._settings.streams:  # one waits, so that no stream is idle
            self._take()

    def _take(self) -> None:
        places, vectors = self._computing.popleft()
        self._vectors[places] = vectors.result()
        self.computed.update(places)
