"""The composition root of the bulk job: opens listing, model and store, and joins them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from clipsrv.bulk.assembly import facts_of_vectors, job_of, open_model
from clipsrv.bulk.deadline import Deadline
from clipsrv.bulk.errors import TOO_LONG_EXIT_STATUS, NothingUsableError
from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Facts, Store
from clipsrv.bulk.report import Report
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.bulk.sources.listing import Listing, read_listing, write_listing
from clipsrv.bulk.stores.files import FileStore, begin_or_continue
from clipsrv.bulk.stores.outputs import Writer, writer_for
from clipsrv.bulk.stores.parts import INPUTS, NEW_INPUTS, Parts, reporting
from clipsrv.bulk.voice import Voice
from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install
from clipsrv.models.model import Model
from clipsrv.search.facts import beside
from clipsrv.search.words import URL_SCHEMES
from clipsrv.settings import image_limits

LATE = "late.jsonl"
#: The end of a Lance dataset's name.
LANCE = ".lance"

Received = Callable[[], int | None]
Opener = Callable[[Model, Listing, Report], Store]


@dataclass(frozen=True)
class Product:
    """What a job ends in, if it is a file: whatever `writer` makes of vectors. Its `facts` must be equal for another
    run to go on, and its `warning` is said before the work. All are asked for at the start; `text` is whether their
    model needs its text tower."""

    writer: Callable[[Model], Writer]
    facts: Callable[[Model], Facts] = lambda model: {}
    what: str = "vector"
    text: bool = False
    warning: Callable[[Model], str | None] = lambda model: None


def run_job(options: JobOptions, config: Config, received: Received) -> int:
    """Embeds, by checked arguments. Raises StartError or EngineError."""
    out = Path(options.out)
    is_url = options.out.startswith(URL_SCHEMES)
    is_lance = not is_url and out.suffix.lower() == LANCE
    if (options.prune or options.ann) and not is_lance:
        raise ConfigError(f"{'--prune' if options.prune else '--ann'} is for an output that grows and ends in {LANCE}.")
    if is_url:
        return _run_into_what_grows(
            options, config, received, f"{options.table}.errors.jsonl", _table(options, received)
        )
    if is_lance:
        return _run_into_what_grows(options, config, received, str(beside(out, "errors.jsonl")), _dataset(options))
    writer = writer_for(out)
    return run_into_file(options, config, received, Product(lambda model: writer))


def run_into_file(options: JobOptions, config: Config, received: Received, product: Product) -> int:
    """Makes `product` of the images. Raises StartError or EngineError."""
    out = Path(options.out)
    errors = Path(options.errors) if options.errors else beside(out, "errors.jsonl")
    with closing(Parts(beside(out, "parts"))) as parts:
        if options.as_listed and parts.facts() is not None and not options.restart:
            listing = read_listing(parts.folder / INPUTS)
        else:
            listing = _write_listing(options.inputs, parts.folder / NEW_INPUTS)
        model = open_model(config, text=product.text)
        facts = {**_facts(model, config, options.shard_size, listing), **product.facts(model)}
        writer = product.writer(model)
        report = Report(errors, quiet=options.quiet, voice=Voice())
        if not begin_or_continue(out, parts, facts, restart=options.restart):
            report.say(f"{out} is complete already.")
            return 0
        listing = Listing(parts.folder / INPUTS, listing.count, listing.sha256)
        if warning := product.warning(model):
            report.say(warning)
        deadline = _deadline(options, parts.folder / LATE)
        store = FileStore(out, parts, writer, facts, product.what)
        with closing(model), closing(store), closing(deadline), report:
            try:
                return _run(options, config, model, store, listing, report, deadline, received)
            except NothingUsableError:
                parts.discard()  # there is nothing to go on with, and what is mended must be read again
                raise


def _run_into_what_grows(
    options: JobOptions, config: Config, received: Received, errors: str, open_store: Opener
) -> int:
    """Embeds into a store that says itself what is done. Bad images are listed in `errors`, or where `options` say."""
    if options.restart or options.as_listed:
        raise ConfigError("--restart and --as-listed are for files: this output says itself what is done.")
    listed = Path(options.errors or errors)
    report = Report(listed, quiet=options.quiet, voice=Voice())
    with tempfile.TemporaryDirectory(prefix="clipsrv-") as folder:
        listing = _write_listing(options.inputs, Path(folder) / INPUTS)
        model = open_model(config)
        store = open_store(model, listing, report)
        deadline = _deadline(options, beside(listed, LATE), scratch=Path(folder))
        with closing(model), closing(store), closing(deadline), report:
            return _run(options, config, model, store, listing, report, deadline, received)


def _table(options: JobOptions, received: Received) -> Opener:
    try:
        from clipsrv.bulk.stores.postgres import PostgresStore
    except ImportError:
        raise ConfigError(f"PostgreSQL needs psycopg: {how_to_install('postgres')}") from None

    def open_table(model: Model, listing: Listing, report: Report) -> Store:
        outage = Outage(options.patience, report.say, lambda: received() is not None)
        return PostgresStore(options.out, options.table, model.embedding_id, model.manifest.dimensions, outage)

    return open_table


def _dataset(options: JobOptions) -> Opener:
    try:
        from clipsrv.bulk.stores.lance import LanceStore
    except ImportError:
        raise ConfigError(f"Lance needs pylance: {how_to_install('lance')}") from None

    def open_dataset(model: Model, listing: Listing, report: Report) -> Store:
        ids, facts = (entry.id for entry in listing.entries(0)), facts_of_vectors(model)
        return LanceStore(Path(options.out), facts, ids, prune=options.prune, ann=options.ann)

    return open_dataset


def _run(
    options: JobOptions,
    config: Config,
    model: Model,
    store: Store,
    listing: Listing,
    report: Report,
    deadline: Deadline,
    received: Received,
) -> int:
    job = job_of(options, config, model, store, report, deadline)
    summary = job.run(listing, lambda: received() is not None)
    if summary.interrupted:
        report.conclude(summary, "Interrupted, the same command goes on from here")
        return 128 + (received() or 0)
    if (first := summary.first_bad) and not summary.usable:
        raise NothingUsableError(f"No image can be used. {first.path}: {first.message} {report.reasons}")
    report.conclude(summary, store.finish())
    return 0


def _deadline(options: JobOptions, file: Path, scratch: Path | None = None) -> Deadline:
    """`scratch` is a folder of this process alone, which it takes away when it ends so."""

    def leave(path: str) -> None:
        took = f"{path} took more than {options.image_seconds:g} s to decode (--image-seconds)"
        Voice().write(f"clipsrv: {took}. Run the same command again to go on without it.\n")
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(TOO_LONG_EXIT_STATUS)

    with reporting(file):
        return Deadline(options.image_seconds, file, leave)


def _write_listing(inputs: Inputs, file: Path) -> Listing:
    with reporting(file.parent):
        return write_listing(inputs.entries(), file, inputs.in_words)


def _facts(model: Model, config: Config, shard_size: int, listing: Listing) -> Facts:
    return {
        **facts_of_vectors(model),
        "limits": asdict(image_limits(config)),
        "max_batch_size": config.max_batch_size,
        "shard_size": shard_size,
        "inputs": {"count": listing.count, "sha256": listing.sha256},
    }
