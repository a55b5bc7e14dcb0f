"""One model on this machine and the images of shards to their vectors: what every engine runs.

Can be told everything that it needs on another machine. Knows nothing of sinks.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from clipsrv.bulk.assembly import facts_of_vectors, job_of, open_model
from clipsrv.bulk.deadline import Deadline
from clipsrv.bulk.errors import TOO_LONG_EXIT_STATUS, OutputError
from clipsrv.bulk.job import Listed
from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.records import BadFile, Facts, Refusal, Shard
from clipsrv.bulk.stores.parts import reporting
from clipsrv.bulk.voice import Voice
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.model import fetch_model
from clipsrv.config import Config
from clipsrv.runtime.vectors import Vectors

#: Where the images are noted that a decoder did not finish: a file for each process that one ended.
LATE = "late"

Take = Callable[[Shard], list[Refusal]]


@dataclass(frozen=True)
class Orders:
    """What a worker is told. `cores` is how many it may use; None: all of this machine. With `model_digest` the model
    is that in the work folder. `directory` is where paths that are relative begin."""

    options: JobOptions
    config: Config
    work: str
    cores: int | None = None
    model_digest: str | None = None
    directory: str | None = None


class Worker:
    """Opens its model when it is made. Raises ModelError, DeviceError or OutputError."""

    def __init__(self, orders: Orders) -> None:
        self._options = replace(orders.options, strict=False)  # who takes what comes of it judges it
        self._config, self._cores = orders.config, orders.cores
        self._scratch = tempfile.TemporaryDirectory(prefix="clipsrv-worker-")
        work = Folder(orders.work)
        self._deadline = self._watch(work, Path(self._scratch.name, "late.jsonl"))
        try:
            self._model = open_model(_with_model(orders, work))
        except BaseException:
            self._forget()
            raise

    @property
    def facts(self) -> Facts:
        """Of the vectors that it makes."""
        return facts_of_vectors(self._model)

    def embed(self, number: int, listed: Listed, take: Take, stop: Callable[[], bool] = lambda: False) -> bool:
        """Gives what becomes of the entries `listed`, of the shard `number`, to `take` in stretches; False if `stop`
        ended it before the last. Raises EngineError, and what `take` raises."""
        store = _Passing(lambda stretch: take(replace(stretch, number=number)))
        job = job_of(self._options, self._config, self._model, store, _Nobody(), self._deadline, self._cores)
        return not job.run(listed, stop).interrupted

    def close(self) -> None:
        self._model.close()
        self._forget()

    def _forget(self) -> None:
        self._deadline.close()
        self._scratch.cleanup()

    def _watch(self, work: Folder, file: Path) -> Deadline:
        """What took too long in any process of the job is passed over by all that begin after it."""
        noted = [work.read(f"{LATE}/{name}") or b"" for name in sorted(work.names(LATE))]
        with reporting(file.parent):
            file.write_bytes(b"\n".join(noted))

        def leave(path: str) -> None:
            with suppress(OutputError):  # where it cannot be noted, another process ends here again
                work.write(f"{LATE}/{uuid.uuid4().hex}.jsonl", file.read_bytes())
            took = f"{path} took more than {self._options.image_seconds:g} s to decode (--image-seconds)"
            Voice().write(f"clipsrv: {took}. Run the same command again to go on without it.\n")
            self._scratch.cleanup()
            os._exit(TOO_LONG_EXIT_STATUS)

        return Deadline(self._options.image_seconds, file, leave)


def _with_model(orders: Orders, work: Folder) -> Config:
    config = orders.config
    if orders.model_digest is None:
        return config
    models = fetch_model(Path(config.models_dir), config.model, work, orders.model_digest)
    return replace(config, models_dir=str(models))


class _Passing:
    """A store that keeps nothing: stretches go on to whoever takes them."""

    shards_done = 0

    def __init__(self, take: Take) -> None:
        self._take = take

    def bad_before(self) -> Iterator[BadFile]:
        return iter(())

    def sha256_of(self, entry_id: str) -> str | None:
        return None

    def holds(self, sha256: str) -> bool:
        return False

    def vector(self, sha256: str) -> Vectors | None:
        return None

    def write(self, shard: Shard) -> list[Refusal]:
        return self._take(shard)

    def finish(self) -> str:
        return ""

    def close(self) -> None:
        pass


class _Nobody:
    """An observer that is told in vain: who takes the stretches counts."""

    def begun(self, total: int, done: int) -> None:
        pass

    def advanced(self) -> None:
        pass

    def found_bad(self, bad: BadFile) -> None:
        pass
