"""The engine that is a Ray cluster: an actor pool of Ray Data, in which every actor is a worker with its own model.

What goes to an actor is a piece of a shard's list, by its place; what comes back are rows of vector or error. Pieces
come back in their order, so that one shard is open at a time. An actor or a node that is lost costs the pieces it had:
Ray gives them to others.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from clipsrv.bulk.engines.arriving import arriving
from clipsrv.bulk.engines.engine import Take
from clipsrv.bulk.engines.fleet import Fleet, fleet
from clipsrv.bulk.engines.pieces import Piece, Pieces, cut, rows_of
from clipsrv.bulk.errors import GivenUpError
from clipsrv.bulk.records import Facts
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.model import publish_model
from clipsrv.bulk.work.plan import Plan
from clipsrv.bulk.worker import Orders, Worker
from clipsrv.errors import ClipsrvError, DeviceError, InferenceFailedError
from clipsrv.machine import usable_cores
from clipsrv.models.folders import find_model

#: Pieces of one run of Ray Data: what it holds of each, in the driver, is bounded so.
_WAVE = 2_000
#: Pieces that an actor has: one that it computes, and one that waits.
_AT_AN_ACTOR = 2
#: Times that a piece is begun again whose actor was lost, or asked for in vain: of a node that is gone Ray asks some
#: seven times before it gives it up. An image that ends every process must end the job some time.
_RETRIES = 100
#: Seconds between two looks whether the job is to end.
_LOOK = 0.5
#: Seconds after which it is told that no actor has started yet.
_SOON = 5.0


class RayEngine:
    """Joins the cluster of the options' address, or starts one on this machine; `say` is told while nothing comes from
    it. Raises ConfigError, DeviceError, or GivenUpError if the job is to end before an actor could start."""

    def __init__(self, orders: Orders, say: Callable[[str], None]) -> None:
        self._orders, self._say, options = orders, say, orders.options
        _connect(options.address)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._fleet = fleet(nodes, options.actors, options.gpus_per_actor)
            self._orders = self._for_actors(orders, self._fleet)
            self.facts = self._ask_for_facts()
        except BaseException:
            self.close()
            raise

    def run(self, plan: Plan, numbers: Sequence[int], take: Take, stop: Callable[[], bool]) -> bool:
        pieces = cut(plan, numbers, self._orders.options.shard_size)
        for at in range(0, len(pieces), _WAVE):
            with _telling():
                for table in arriving(self._computed(plan, pieces[at : at + _WAVE]), stop, self._tell_of_silence):
                    take(rows_of(table))
            if stop():
                return False
        return True

    def close(self) -> None:
        ray.shutdown()

    def _computed(self, plan: Plan, pieces: list[Piece]) -> Iterator[Any]:
        """A table for each piece, in the order of the pieces."""
        data: Any = ray.data.from_items([piece._asdict() for piece in pieces], override_num_blocks=len(pieces))
        count = min(self._fleet.actors, len(pieces))
        with warnings.catch_warnings():
            # Ray takes this number nowhere else, and without it begins a piece again for ever.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            computed = data.map_batches(
                Pieces,
                fn_constructor_kwargs={"orders": self._orders, "plan": plan, "facts": dict(self.facts)},
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=_AT_AN_ACTOR),
                num_cpus=self._fleet.cpus,
                num_gpus=self._fleet.gpus,
                max_task_retries=_RETRIES,
            )
        return iter(computed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))

    def _for_actors(self, orders: Orders, those: Fleet) -> Orders:
        """What an actor is told: where its model is, and how much of its node it may use."""
        config, folder = orders.config, find_model(Path(orders.config.models_dir), orders.config.model)
        config = replace(config, decode_threads=config.decode_threads or those.cpus)
        # Actors of a cluster that was started here are on this machine.
        digest = publish_model(folder, Folder(orders.work)) if orders.options.address else None
        return replace(orders, config=config, cores=those.cpus, model_digest=digest, directory=os.getcwd())

    def _ask_for_facts(self) -> Facts:
        """Of the vectors that an actor makes, which depends on its node's device."""
        ask: Any = ray.remote(num_cpus=self._fleet.cpus, num_gpus=self._fleet.gpus, max_retries=_RETRIES)(_facts)
        options = self._orders.options
        with _telling():
            asked, began, told = ask.remote(self._orders), time.monotonic(), False
            while not ray.wait([asked], timeout=_LOOK)[0]:
                seconds = time.monotonic() - began
                if options.inputs.stop():
                    raise GivenUpError("The job was asked to end before an actor had started.")
                if seconds > options.patience:
                    raise DeviceError(
                        f"No actor could start within {options.patience:g} s (--patience): {self._needed_and_free()}"
                    )
                if not told and seconds > _SOON:
                    self._say(f"Waiting for an actor to start: {self._needed_and_free()}")
                    told = True
            facts: Facts = ray.get(asked)
        return facts

    def _tell_of_silence(self, seconds: float) -> None:
        self._say(f"Nothing came from the cluster for {seconds:.0f} s: {self._needed_and_free()}")

    def _needed_and_free(self) -> str:
        """What an actor takes, and what the cluster has of it."""
        each = {"CPU": self._fleet.cpus, "GPU": self._fleet.gpus}
        there, free = ray.cluster_resources(), ray.available_resources()
        has = [f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {kind}s" for kind, count in each.items() if count]
        takes = [f"{count:g} {kind}s" for kind, count in each.items() if count]
        return f"an actor takes {' and '.join(takes)}; {' and '.join(has)} of the cluster are free."


def _facts(orders: Orders) -> Facts:
    worker = Worker(orders)
    try:
        return worker.facts
    finally:
        worker.close()


def _connect(address: str | None) -> None:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    started: dict[str, Any] = {} if address else {"num_cpus": usable_cores(), "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **started)
    except Exception as error:  # noqa: BLE001 - Ray raises Exception itself where a node does not start
        ray.shutdown()
        raise DeviceError(f"Cannot use Ray on {address or 'this machine'}: {_first_line(error)}") from None
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ray would end the process in the middle of a piece
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False


@contextmanager
def _telling() -> Iterator[None]:
    """Turns what Ray raises into what the worker raised, or into InferenceFailedError."""
    try:
        yield
    except ClipsrvError as error:
        raise _cause(error) or error from None
    except (ray.exceptions.RayError, pa.ArrowException) as error:
        raise _cause(error) or InferenceFailedError(f"Ray gave up: {_first_line(error)}") from None


def _cause(error: BaseException) -> ClipsrvError | None:
    """The error of a worker's own that Ray has wrapped, however often."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None) or seen.__cause__
        if isinstance(seen, ClipsrvError) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = inner if isinstance(inner, BaseException) else None
    return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
