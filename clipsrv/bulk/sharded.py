"""The composition root of a job in shards: plan, engine and sink, joined; a driver, or several, each on its part."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from clipsrv.bulk.delivery import Delivery
from clipsrv.bulk.engines.engine import Engine
from clipsrv.bulk.errors import NothingUsableError, OutputError
from clipsrv.bulk.options import LOCAL, JobOptions
from clipsrv.bulk.outage import Outage
from clipsrv.bulk.progress import Progress
from clipsrv.bulk.records import Facts
from clipsrv.bulk.sinks.opening import open_sink
from clipsrv.bulk.voice import Voice
from clipsrv.bulk.work.folder import Folder
from clipsrv.bulk.work.marks import Marks
from clipsrv.bulk.work.place import Place
from clipsrv.bulk.work.plan import Plan, read_plan, write_plan
from clipsrv.bulk.worker import Orders
from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.settings import image_limits

Received = Callable[[], int | None]


def run_in_shards(options: JobOptions, config: Config, received: Received) -> int:
    """Embeds one part of the shards of a job, or all. Raises StartError or EngineError."""
    assert options.work is not None
    work, part, parts = Folder(options.work), *options.part
    marks, progress = Marks(work), Progress(quiet=options.quiet, voice=Voice())
    with ExitStack() as opened:
        opened.callback(progress.close)
        place = opened.enter_context(closing(Place(work, f"{part}-of-{parts}")))
        _refuse_other_division(work, parts, progress.say)
        if not place.take(progress.say):
            raise OutputError(f"{place.holder()} is at work on shards {part}/{parts} of {work.url} already.")
        engine = opened.enter_context(closing(_engine(Orders(options, config, options.work), progress.say)))
        facts = {**engine.facts, **_facts(options, config)}
        plan = _planned(work, options, facts, progress.say)
        mine = [number for number in range(plan.shards) if number % parts == part]
        done = marks.done()
        outage = Outage(options.patience, progress.say, lambda: received() is not None)
        sink = opened.enter_context(closing(open_sink(options, engine.facts, plan, outage)))
        delivery = Delivery(plan, sink, marks, place, progress, strict=options.strict)
        ahead = [number for number in mine if number not in done]
        for number in ahead:
            if not plan.size(number):
                delivery.pass_over(number)
        progress.begun(*(sum(map(plan.size, those)) for those in (mine, done.intersection(mine))))
        ahead = [number for number in ahead if plan.size(number)]
        whole = engine.run(plan, ahead, delivery.take, lambda: received() is not None) if ahead else True
        if not whole:
            progress.say(f"Interrupted, the same command goes on from here: {progress.in_words}.")
            return 128 + (received() or 0)
        if (first := delivery.first_bad) and not progress.rows:
            raise NothingUsableError(
                f"No image can be used. {first.path}: {first.message} Reasons are in {marks.failures()}."
            )
        left = plan.shards - len(marks.done())
        bad = f" Reasons are in {marks.failures()}." if progress.bad else ""
        whose = f"shards {part}/{parts}, with {left:,} of others to do yet" if left else f"all {plan.shards:,} shards"
        progress.say(f"Done are {whose}, in {shown(options.out)}: {progress.in_words}.{bad}")
    return 0


def _engine(orders: Orders, say: Callable[[str], None]) -> Engine:
    if orders.options.engine == LOCAL:
        from clipsrv.bulk.engines.local import LocalEngine

        return LocalEngine(orders)
    try:
        from clipsrv.bulk.engines.cluster import RayEngine
    except ImportError:
        raise ConfigError(f"--engine ray needs Ray: {how_to_install('ray')}") from None
    return RayEngine(orders, say)


def shown(url: str) -> str:
    """A URL without what is nobody's business: user, password and query."""
    if "://" not in url:
        return url
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path}"


def _facts(options: JobOptions, config: Config) -> Facts:
    asked = options.inputs
    named = repr((list(asked.paths), list(asked.lists), asked.null, asked.relative_to, asked.encoding))
    return {
        "limits": asdict(image_limits(config)),
        "max_batch_size": config.max_batch_size,
        "shard_size": options.shard_size,
        "rows_per_shard": options.rows_in_shard,
        "out": shown(options.out) + (f" {options.table}" if "://" in options.out else ""),
        "inputs": f"{asked.in_words} ({hashlib.sha256(named.encode()).hexdigest()[:8]})",
    }


def _planned(work: Folder, options: JobOptions, facts: Mapping[str, Any], say: Callable[[str], None]) -> Plan:
    """The plan in `work`, which one driver writes while the others wait. Raises OutputError for that of another job."""
    while (plan := read_plan(work)) is None:
        with closing(Place(work, "plan")) as place:
            if place.take() and read_plan(work) is None:
                say(f"Writing the list of {options.inputs.in_words} to {work.url} ...")
                return write_plan(work, options.inputs.entries(), options.rows_in_shard, facts, options.inputs.in_words)
    differences = [name for name in facts if plan.facts.get(name) != facts[name]]
    if differences:
        said = "; ".join(f"{name} was {plan.facts.get(name)}, is {facts[name]}" for name in differences)
        raise OutputError(
            f"The job in {work.url} was begun otherwise: {said}. Run it as it was, or name another --work."
        )
    return plan


def _refuse_other_division(work: Folder, parts: int, say: Callable[[str], None]) -> None:
    for name in sorted(work.names("drivers")):
        found = re.fullmatch(r"(\d+)-of-(\d+)\.json", name)
        if found and int(found[2]) != parts:
            other = Place(work, name.removesuffix(".json"))
            if other.is_held(say):
                raise OutputError(
                    f"{other.holder()} is at work on shards {found[1]}/{found[2]} of {work.url}: take a part of as "
                    "many, or wait for its end."
                )
