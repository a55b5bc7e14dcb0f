"""What /models and /health say of the models: read once from the model folders, and of the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipsrv.manifest import TEXT, ModelManifest
from clipsrv.models.folders import KNOWN_MODELS, available_models
from clipsrv.models.known import languages_of
from clipsrv.models.model import Model


class Catalog:
    """The models folder as it was at the start, and the name of the model served."""

    def __init__(self, models_dir: Path, current: str) -> None:
        self.current = current
        self._manifests = available_models(models_dir)

    def running(self, model: Model) -> dict[str, Any]:
        """Facts of the model in use; device and precision are those that run, never those asked for."""
        return {
            "device": model.device,
            "precision": model.precision,
            "dimensions": model.manifest.dimensions,
            "embedding_id": model.embedding_id,
            "text": model.text_encoder is not None,
        }

    def describe(self, model: Model | None) -> dict[str, Any]:
        """The body of /models: the four known names and every converted one, with details of each."""
        names = [*KNOWN_MODELS, *(name for name in self._manifests if name not in KNOWN_MODELS)]
        details = {name: self._details(self._manifests.get(name)) for name in names}
        if model is not None:
            details.setdefault(self.current, self._details(model.manifest))
            details[self.current] |= self.running(model) | {
                "preprocessing_id": model.preprocessing_id,
                "languages": list(model.languages),
            }
        return {"models": names, "current": self.current, "details": details}

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
