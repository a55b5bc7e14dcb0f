"""What /models and /health say of the models: of those in the folder, and of those that run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from clipsrv.manifest import TEXT, ModelManifest
from clipsrv.models.folders import KNOWN_MODELS
from clipsrv.models.known import languages_of
from clipsrv.models.library import Library
from clipsrv.models.model import Model


class Catalog:
    """The models of a library, as they are now."""

    def __init__(self, library: Library) -> None:
        self._library = library

    @property
    def current(self) -> str:
        """The model meant where none is named."""
        return self._library.default

    def running(self, model: Model) -> dict[str, Any]:
        """Facts of a model in use; device and precision are those that run, never those asked for."""
        return {
            "device": model.device,
            "precision": model.precision,
            "dimensions": model.manifest.dimensions,
            "embedding_id": model.embedding_id,
            "text": model.text_encoder is not None,
        }

    def offered(self) -> dict[str, int]:
        """Names and aliases that a request may name, and when each was converted, in seconds since 1970; 0 if nobody
        knows."""
        manifests, names = self._library.manifests, self._library.names()
        meant = {name: name for name in names} | dict(self._library.aliases)
        return {name: _seconds(manifests.get(model)) for name, model in meant.items()}

    def describe(self, loaded: Mapping[str, Model]) -> dict[str, Any]:
        """The body of /models: the four known names and every converted one, with details of each; only those that are
        served say whether they are `loaded`."""
        manifests = self._library.manifests
        names = [*KNOWN_MODELS, *(name for name in manifests if name not in KNOWN_MODELS)]
        details = {name: self._details(manifests.get(name)) for name in names}
        for name, model in loaded.items():
            details.setdefault(name, self._details(model.manifest))
            details[name] |= self.running(model) | {
                "preprocessing_id": model.preprocessing_id,
                "languages": list(model.languages),
            }
        for name in self._library.names():
            details.setdefault(name, self._details(None))["loaded"] = name in loaded
        return {"models": names, "current": self.current, "aliases": dict(self._library.aliases), "details": details}

    def _details(self, manifest: ModelManifest | None) -> dict[str, Any]:
        if manifest is None:
            return {"converted": False}
        spec = manifest.preprocess
        return {
            "converted": True,
            "dimensions": manifest.dimensions,
            "image_size": spec.crop_size,
            "precision": "fp32",
            "preprocessing_id": spec.id,
            "embedding_id": manifest.embedding_id("fp32", spec.id),
            "normalized": True,
            "license": manifest.source.get("license", "unknown"),
            "note": manifest.source.get("note", ""),
            "languages": list(languages_of(manifest)),
            "text": TEXT in manifest.towers,
            "parity": dict(manifest.parity),
        }


def _seconds(manifest: ModelManifest | None) -> int:
    try:
        return int(datetime.fromisoformat(manifest.created).timestamp()) if manifest else 0
    except (ValueError, OverflowError, OSError):
        return 0
