"""Which model made an index's vectors, and how it must be opened to make more of them: by embedding_id alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

from clipsrv.errors import DeviceError, ModelNotFoundError
from clipsrv.manifest import VISION, ModelManifest, load_manifest
from clipsrv.models.folders import available_models, find_model
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model, preprocessing_id
from clipsrv.providers.table import provider
from clipsrv.runtime.choice import candidate_devices
from clipsrv.search.errors import UnusableIndexError
from clipsrv.search.words import Facts, Index
from clipsrv.settings import Decoding, ModelSettings

_DECODINGS = tuple(Decoding(upright, fast) for upright, fast in product((True, False), (False, True)))


def open_maker(index: Index, models_dir: Path, settings: ModelSettings, named: str | None = None) -> Model:
    """The model that made the vectors of `index`, or the one `named` if it did. Of `settings` a device and a precision
    that are auto become those that make these vectors, and so does the decoding.

    Raises UnusableIndexError if it is another model that is named, ModelNotFoundError if none here is the one, and as
    `load_model`.
    """
    models = available_models(models_dir)
    if named is not None:
        models = {named: load_manifest(find_model(models_dir, named))}
    refusal: DeviceError | None = None
    for name in sorted(models, key=lambda name: (name != index.facts.model, name)):
        for fitting in _fitting(models[name], index.facts.embedding_id, settings):
            try:
                return load_model(find_model(models_dir, name), fitting)
            except DeviceError as error:
                refusal = refusal or error
    if refusal:
        raise refusal
    whose = _whose(index.facts)
    how = "" if settings.device == settings.precision == "auto" else f" with {settings.device}, {settings.precision}"
    if named is not None:
        raise UnusableIndexError(
            f"{index.name} holds {whose}; {named}{how} makes others. They cannot be compared: leave --model "
            "(CLIPSRV_MODEL) out."
        )
    there = ", ".join(models) or "none"
    raise ModelNotFoundError(
        f"{index.name} holds {whose}. No model of {models_dir} (there: {there}){how} makes such on this machine: name "
        "the folder of the one that does with --models-dir, or embed again."
    )


def maker_among(index: Index, served: Mapping[str, str]) -> str:
    """The one of the models that are `served`, by their names to their embedding_ids, that made `index`. Raises
    UnusableIndexError."""
    facts = index.facts
    if (name := next((name for name, found in served.items() if found == facts.embedding_id), None)) is not None:
        return name
    raise UnusableIndexError(
        f"The index {index.name} holds {_whose(facts)}. Served is "
        f"{' and '.join(served)}, which makes others: serve the model that made them, in its precision (--model, "
        "--precision), or embed again."
    )


def _whose(facts: Facts) -> str:
    made = f", which a model called {facts.model} made" if facts.model else ""
    return f"vectors of embedding_id {facts.embedding_id}{made}"


def _fitting(manifest: ModelManifest, embedding_id: str, settings: ModelSettings) -> Iterator[ModelSettings]:
    """Every way in which this machine may open a model so that it makes vectors of `embedding_id`, the best first."""
    for device in candidate_devices(settings.device):
        for precision, row in provider(device).precisions.items():
            if row.graph not in manifest.towers[VISION].variants or settings.precision not in ("auto", precision):
                continue
            for decoding in _DECODINGS:
                if manifest.embedding_id(row.variant, preprocessing_id(manifest, decoding)) == embedding_id:
                    yield replace(settings, device=device, precision=precision, decoding=decoding)
