"""The composition root of the bulk job: opens listing, model and store, and joins them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from clipsrv.bulk.job import Job, JobSettings
from clipsrv.bulk.prepare import Preparer
from clipsrv.bulk.records import Facts, Store
from clipsrv.bulk.report import Report
from clipsrv.bulk.sources.listing import Listing, read_listing, write_listing
from clipsrv.bulk.sources.local import Inputs
from clipsrv.bulk.stores.files import FileStore, begin_or_continue
from clipsrv.bulk.stores.outputs import beside, writer_for
from clipsrv.bulk.stores.parts import INPUTS, NEW_INPUTS, Parts, reporting
from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import Decoding, reuse_memory
from clipsrv.images.open import ImageLimits
from clipsrv.machine import usable_cores
from clipsrv.models.model import Model, find_model, load_model
from clipsrv.runtime.session import candidate_devices

FORMAT = 1
URL_SCHEMES = ("postgresql://", "postgres://")

Received = Callable[[], int | None]


def run_job(args: argparse.Namespace, config: Config, inputs: Inputs, received: Received) -> int:
    """Runs the job of checked arguments. Raises StartError or EngineError."""
    if args.out.startswith(URL_SCHEMES):
        return _run_into_table(args, config, inputs, received)
    return _run_into_file(args, config, inputs, received)


def _run_into_file(args: argparse.Namespace, config: Config, inputs: Inputs, received: Received) -> int:
    out = Path(args.out)
    writer = writer_for(out)
    errors = Path(args.errors) if args.errors else beside(out, "errors.jsonl")
    with closing(Parts(beside(out, "parts"))) as parts:
        if args.as_listed and parts.facts() is not None and not args.restart:
            listing = read_listing(parts.folder / INPUTS)
        else:
            listing = _write_listing(inputs, parts.folder / NEW_INPUTS)
        model = _load(config)
        facts = _facts(model, config, args.shard_size, listing)
        report = Report(errors, quiet=args.quiet, stream=sys.stderr)
        if not begin_or_continue(out, parts, facts, restart=args.restart):
            report.say(f"{out} is complete already.")
            return 0
        listing = Listing(parts.folder / INPUTS, listing.count, listing.sha256)
        with closing(FileStore(out, parts, writer, facts)) as store, report:
            return _run(args, config, model, store, listing, report, received)


def _run_into_table(args: argparse.Namespace, config: Config, inputs: Inputs, received: Received) -> int:
    try:
        from clipsrv.bulk.stores.postgres import PostgresStore
    except ImportError:
        raise ConfigError("PostgreSQL needs psycopg: pip install 'clipsrv[postgres]'.") from None
    if args.restart or args.as_listed:
        raise ConfigError("--restart and --as-listed are for files: a table says itself what is done.")
    report = Report(Path(args.errors or f"{args.table}.errors.jsonl"), quiet=args.quiet, stream=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="clipsrv-") as folder:
        listing = _write_listing(inputs, Path(folder) / INPUTS)
        model = _load(config)
        store = PostgresStore(
            args.out,
            args.table,
            model.embedding_id,
            model.manifest.dimensions,
            patience=args.patience,
            warn=report.say,
        )
        with closing(store), report:
            return _run(args, config, model, store, listing, report, received)


def _run(
    args: argparse.Namespace,
    config: Config,
    model: Model,
    store: Store,
    listing: Listing,
    report: Report,
    received: Received,
) -> int:
    prepare = Preparer(
        model=model,
        limits=_limits(config),
        budget=PixelBudget(config.max_pixels_in_flight),
        store=store,
    )
    decode_threads = config.decode_threads or usable_cores()
    reuse_memory(decode_threads)
    streams = usable_cores() // model.threads if model.device == "cpu" else 1
    settings = JobSettings(args.shard_size, config.max_batch_size, decode_threads, max(1, streams), strict=args.strict)
    summary = Job(model, prepare, store, settings, report).run(listing, lambda: received() is not None)
    if summary.interrupted:
        report.conclude(summary, "Interrupted, the same command goes on from here")
        return 128 + (received() or 0)
    report.conclude(summary, store.finish())
    return 0


def _write_listing(inputs: Inputs, file: Path) -> Listing:
    with reporting(file.parent):
        return write_listing(inputs.entries(), file)


def _load(config: Config) -> Model:
    alone = candidate_devices(config.device)[:1] == ["cpu"]
    threads = config.threads or (1 if alone else usable_cores())  # the job computes in streams on the CPU
    folder = find_model(Path(config.models_dir), config.model)
    decoding = Decoding(exif_orientation=config.exif_orientation, fast=config.fast_decode)
    return load_model(
        folder, device=config.device, precision=config.precision, threads=threads, text=False, decoding=decoding
    )


def _limits(config: Config) -> ImageLimits:
    return ImageLimits(
        max_bytes=config.max_image_bytes, max_pixels=config.max_pixels, max_aspect_ratio=config.max_aspect_ratio
    )


def _facts(model: Model, config: Config, shard_size: int, listing: Listing) -> Facts:
    limits: dict[str, Any] = vars(_limits(config))
    return {
        "format": FORMAT,
        "model": model.manifest.name,
        "embedding_id": model.embedding_id,
        "preprocessing_id": model.preprocessing_id,
        "precision": model.precision,
        "dimensions": model.manifest.dimensions,
        "limits": limits,
        "max_batch_size": config.max_batch_size,
        "shard_size": shard_size,
        "inputs": {"count": listing.count, "sha256": listing.sha256},
    }
