"""manifest.json, the contract between the converter and the server: what a model folder holds, and proof of it.

Knows nothing of onnxruntime or torch: it reads JSON and hashes files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipsrv.documents import open_file, read_json
from clipsrv.errors import ModelCorruptError, ModelError, ModelNotFoundError
from clipsrv.specs import MAX_DIMENSIONS, FileSpec, PreprocessSpec, ScoringSpec, TokenSpec, TowerSpec, short_hash, whole

#: What is written. Format 1 does not say what a model was made from, and is read for ever.
FORMAT = 2
FORMATS = (1, FORMAT)
MANIFEST_NAME = "manifest.json"
VISION, TEXT = "vision", "text"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelManifest:
    """A model folder's facts. `files` names every file of the folder but the manifest itself.

    `source` holds repo, revision, license and weights_sha256 (of the checkpoint's weights file); `parity` the
    converter's table of measured differences from the original, by tower and precision, shown to users unchanged.
    `made_from` has a hash of each part of the checkpoint, by which the converter knows whether it changed; a manifest
    of format 1 has none. `identity` holds what changes vectors beside weights, preprocessing and precision, and only
    what is not as in the models that format 1 knew (OpenAI's CLIP), so that those keep their embedding_id.
    """

    name: str
    dimensions: int
    preprocess: PreprocessSpec
    towers: Mapping[str, TowerSpec]
    files: Mapping[str, FileSpec]
    source: Mapping[str, str]
    created: str
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    family: str = "clip"
    scoring: ScoringSpec | None = None
    made_from: Mapping[str, str] = field(default_factory=dict)
    identity: Mapping[str, str | int | float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    def embedding_id(self, variant: str, preprocessing_id: str) -> str:
        """Short hash of weights, preprocessing, variant and `identity`: equal where vectors may be compared.

        The weights are the checkpoint's own, so converting it again elsewhere keeps the id. A quantised graph is
        calibrated, so there the graph's own bytes count too.
        """
        graphs = {
            name: self.files[spec.variants[variant]].sha256
            for name, spec in self.towers.items()
            if variant.startswith("int") and variant in spec.variants
        }
        facts: dict[str, Any] = {"weights": self.source["weights_sha256"], "graphs": graphs}
        if self.identity:
            facts["identity"] = dict(self.identity)
        return short_hash({**facts, "preprocessing": preprocessing_id, "precision": variant})

    def relative_errors(self, tower: str) -> dict[str, float]:
        """Measured error of each of the tower's precisions, as a share of the mean distance between inputs."""
        rows = self.parity.get(tower, {})
        return {name: float(row["relative_error"]) for name, row in rows.items() if "relative_error" in row}


def load_manifest(folder: Path) -> ModelManifest:
    """Reads and checks `folder`/manifest.json.

    Raises ModelNotFoundError if there is none, ModelCorruptError if it cannot be understood or contradicts itself.
    """
    path = folder / MANIFEST_NAME
    try:
        return _parse(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"No model in {folder}: it has no {MANIFEST_NAME}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelCorruptError(f"Cannot read {path}: {_reason(error)}.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelCorruptError(
            f"{path} is not a model manifest this version understands ({type(error).__name__}: {error}). "
            "Convert the model again with python -m conversions."
        ) from None


def verify_files(folder: Path, manifest: ModelManifest, names: Iterable[str] | None = None) -> None:
    """Compares size and sha256 of `names` (default: every file of the manifest) with the manifest.

    Raises ModelCorruptError naming the first file that is missing or differs.
    """
    for name in manifest.files if names is None else names:
        expected, path = manifest.files[name], folder / name
        try:
            with open_file(path) as file:
                if (size := os.fstat(file.fileno()).st_size) != expected.size:
                    raise ModelCorruptError(f"{path} {_what_it_is(file.read(64), size, expected.size)}.{_CURE}")
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelCorruptError(f"Cannot read {path}: {_reason(error)}.{_CURE}") from None
        if actual != expected.sha256:
            raise ModelCorruptError(f"{path} differs from its manifest (sha256 {actual[:12]}…).{_CURE}")


def list_models(models_dir: Path) -> dict[str, ModelManifest]:
    """Every valid model folder below `models_dir` by name, sorted; folders that are not models are passed over."""
    found: dict[str, ModelManifest] = {}
    try:
        folders = sorted(path for path in models_dir.iterdir() if NAME.fullmatch(path.name))
    except OSError:
        return found
    for folder in folders:
        try:
            found[folder.name] = load_manifest(folder)
        except ModelError:
            continue
    return found


_CURE = " Convert the model again, or restore the file."


def _parse(raw: Mapping[str, Any]) -> ModelManifest:
    if raw["format"] not in FORMATS:
        raise ValueError(f"format {raw['format']!r}, expected {FORMAT}")
    parity = {
        tower: {precision: _numbers(row) for precision, row in rows.items()} for tower, rows in raw["parity"].items()
    }
    further: dict[str, Any] = {}
    if raw["format"] > 1:
        identity = {name: _scalar(value) for name, value in raw["identity"].items()}
        further = {"family": _text(raw["family"]), "made_from": _texts(raw["made_from"]), "identity": identity}
        if raw.get("scoring") is not None:
            scoring = raw["scoring"]
            further["scoring"] = ScoringSpec(_text(scoring["kind"]), float(scoring["scale"]), float(scoring["bias"]))
    manifest = ModelManifest(
        name=_text(raw["name"]),
        dimensions=raw["dimensions"],
        preprocess=_parse_preprocess(raw["preprocess"]),
        towers={name: _parse_tower(spec) for name, spec in raw["towers"].items()},
        files={name: FileSpec(**spec | {"sha256": _text(spec["sha256"])}) for name, spec in raw["files"].items()},
        source=_texts(raw["source"]),
        created=_text(raw["created"]),
        versions=_texts(raw["versions"]),
        parity=parity,
        **further,
    )
    _check(manifest)
    return manifest


def _check(manifest: ModelManifest) -> None:
    """Raises ValueError if it contradicts itself."""
    whole(manifest.dimensions, "dimensions", 1, MAX_DIMENSIONS)
    if not NAME.fullmatch(manifest.name) or "weights_sha256" not in manifest.source:
        raise ValueError("name or source.weights_sha256 is missing or wrong")
    if VISION not in manifest.towers or not set(manifest.towers) <= {VISION, TEXT}:
        raise ValueError("towers must be vision and, if there is one, text")
    for name in manifest.files:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a plain file name")
    for name in (name for tower in manifest.towers.values() for name in tower.files):
        if name not in manifest.files:
            raise ValueError(f"{name!r} has no checksum")


def _parse_preprocess(raw: Mapping[str, Any]) -> PreprocessSpec:
    # As floats, whole ones too: an id is a hash of how they are written.
    mean, std = (tuple(map(float, raw[key])) for key in ("image_mean", "image_std"))
    return PreprocessSpec(
        **{**raw, "image_mean": mean, "image_std": std, "rescale_factor": float(raw["rescale_factor"])}
    )


def _parse_tower(raw: Mapping[str, Any]) -> TowerSpec:
    for name in ("input", "output", *(["tokenizer"] if raw.get("tokenizer") is not None else [])):
        _text(raw[name])
    further: dict[str, Any] = {"variants": _texts(raw["variants"])}
    if "tokens" in raw:
        marks = tuple(map(_text, raw["tokens"]["marks"]))
        _text(raw["tokens"].get("clean", ""))
        further["tokens"] = TokenSpec(**{**raw["tokens"], "kind": _text(raw["tokens"]["kind"]), "marks": marks})
    return TowerSpec(**{**raw, **further})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} should be text")
    return value


def _scalar(value: Any) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} should be text or a number")
    return value


def _texts(raw: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in raw.items()}


def _numbers(raw: Mapping[str, Any]) -> dict[str, float]:
    return {name: value if isinstance(value, int) else float(value) for name, value in raw.items()}


def _what_it_is(head: bytes, size: int, expected: int) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: run git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not a model: the download went wrong"
    return f"has {size:,} bytes where {expected:,} are expected: it is incomplete"


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
