"""Joins a model, its limits and a machine's threads to a job. Knows nothing of where vectors go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clipsrv.bulk.deadline import Deadline
from clipsrv.bulk.job import Job, JobSettings, Observer
from clipsrv.bulk.options import JobOptions
from clipsrv.bulk.prepare import Preparer
from clipsrv.bulk.records import Facts, Store
from clipsrv.config import Config
from clipsrv.images.budget import PixelBudget
from clipsrv.images.decode import reuse_memory
from clipsrv.machine import usable_cores
from clipsrv.models.folders import find_model
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.providers.table import provider
from clipsrv.runtime.choice import candidate_devices
from clipsrv.settings import decode_threads, image_limits, model_settings, pixels_in_flight

FORMAT = 1


def open_model(config: Config, *, text: bool = False) -> Model:
    """The model of a job, with the threads that suit one. Raises ModelError or DeviceError."""
    settings = replace(model_settings(config), text=text)
    devices = candidate_devices(settings.device)
    if not settings.threads and devices and provider(devices[0]).streams:
        settings = replace(settings, threads=1)
    return load_model(find_model(Path(config.models_dir), config.model), settings)


def job_of(
    options: JobOptions,
    config: Config,
    model: Model,
    store: Store,
    observer: Observer,
    deadline: Deadline,
    cores: int | None = None,
) -> Job:
    """The job that fills `store`, on so many `cores` (default: those that this process may use)."""
    reuse_memory(threads := decode_threads(config))
    streams = (cores or usable_cores()) // model.threads if provider(model.device).streams else 1
    settings = JobSettings(
        options.shard_size,
        config.max_batch_size,
        threads,
        max(1, streams),
        fetch_threads=max(threads, options.fetch_threads) if options.inputs.fetches else 0,
        strict=options.strict,
    )
    prepare = Preparer(
        source=options.inputs,
        model=model,
        limits=image_limits(config),
        budget=PixelBudget(pixels_in_flight(config)),
        store=store,
        deadline=deadline,
    )
    return Job(model, prepare, store, settings, observer)


def facts_of_vectors(model: Model) -> Facts:
    """What must be equal for vectors to be comparable, and whose they are."""
    return {
        "format": FORMAT,
        "model": model.manifest.name,
        "embedding_id": model.embedding_id,
        "preprocessing_id": model.preprocessing_id,
        "precision": model.precision,
        "dimensions": model.manifest.dimensions,
    }
