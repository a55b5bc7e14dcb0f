"""manifest.json, the contract between the converter and the server: what a model folder holds, and proof of it.

Knows nothing of onnxruntime or torch: it reads JSON and hashes files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipsrv.errors import ModelCorruptError, ModelError, ModelNotFoundError

FORMAT = 1
MANIFEST_NAME = "manifest.json"
VISION, TEXT = "vision", "text"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class PreprocessSpec:
    """Preprocessing facts in Hugging Face's own words (preprocessor_config.json of the checkpoint).

    `shortest_edge` and `crop_size` in pixels; `image_mean`, `image_std` one float per RGB channel of the
    image after multiplication by `rescale_factor`.
    """

    shortest_edge: int
    crop_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    rescale_factor: float = 1 / 255
    resample: str = "bicubic"

    @property
    def id(self) -> str:
        """Short hash of every fact above."""
        return self.id_with()

    def id_with(self, **options: bool) -> str:
        """`id` where all `options` have their defaults, else another: vectors of different ids must not be compared."""
        return _short_hash(asdict(self) | options)


@dataclass(frozen=True)
class TowerSpec:
    """One half of the model. `variants` maps a precision (fp32, fp16, int8) to the graph's file name;
    int8-openvino is int8 as OpenVINO computes it.

    Vision: input float32 (n, 3, S, S), output (n, dimensions). Text: input int64 (n, length <= context_length),
    output (n, dimensions). Outputs are not yet of unit length. Weights kept outside a graph lie in the file of
    its name plus ".data".
    """

    input: str
    output: str
    variants: Mapping[str, str]
    context_length: int | None = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class FileSpec:
    sha256: str
    size: int


@dataclass(frozen=True)
class ModelManifest:
    """A model folder's facts. `files` names every file of the folder but the manifest itself.

    `source` holds repo, revision, license and weights_sha256 (of the checkpoint's weights file); `parity` the
    converter's table of measured differences from the original, by tower and precision, shown to users unchanged.
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

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    def embedding_id(self, variant: str, preprocessing_id: str) -> str:
        """Short hash of weights, preprocessing and variant: what must be equal for vectors to be comparable.

        The weights are the checkpoint's own, so converting it again elsewhere keeps the id. A quantised graph is
        calibrated, so there the graph's own bytes count too.
        """
        graphs = {
            name: self.files[spec.variants[variant]].sha256
            for name, spec in self.towers.items()
            if variant.startswith("int") and variant in spec.variants
        }
        facts = {"weights": self.source["weights_sha256"], "graphs": graphs}
        return _short_hash({**facts, "preprocessing": preprocessing_id, "precision": variant})

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
        raw = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"No model in {folder}: it has no {MANIFEST_NAME}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelCorruptError(f"Cannot read {path}: {_reason(error)}.") from None
    try:
        return _parse(json.loads(raw))
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
            if path.stat().st_size != expected.size:
                raise ModelCorruptError(f"{path} {_what_it_is(path, expected)}.{_CURE}")
            with path.open("rb") as file:
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
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']!r}, expected {FORMAT}")
    towers = {name: TowerSpec(**spec) for name, spec in raw["towers"].items()}
    manifest = ModelManifest(
        name=str(raw["name"]),
        dimensions=int(raw["dimensions"]),
        preprocess=_parse_preprocess(raw["preprocess"]),
        towers=towers,
        files={name: FileSpec(**spec) for name, spec in raw["files"].items()},
        source=dict(raw["source"]),
        created=str(raw["created"]),
        versions=dict(raw["versions"]),
        parity=dict(raw["parity"]),
    )
    if not NAME.fullmatch(manifest.name) or manifest.dimensions < 1 or "weights_sha256" not in manifest.source:
        raise ValueError("name, dimensions or source.weights_sha256 is missing or wrong")
    if VISION not in towers or not set(towers) <= {VISION, TEXT}:
        raise ValueError("towers must be vision and, if there is one, text")
    for name in manifest.files:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a plain file name")
    for spec in towers.values():
        for name in (*spec.variants.values(), *filter(None, [spec.tokenizer])):
            if name not in manifest.files:
                raise ValueError(f"{name!r} has no checksum")
        if "fp32" not in spec.variants:
            raise ValueError("every tower needs an fp32 variant")
    return manifest


def _parse_preprocess(raw: Mapping[str, Any]) -> PreprocessSpec:
    red_mean, green_mean, blue_mean = map(float, raw["image_mean"])
    red_std, green_std, blue_std = map(float, raw["image_std"])
    spec = PreprocessSpec(
        shortest_edge=int(raw["shortest_edge"]),
        crop_size=int(raw["crop_size"]),
        image_mean=(red_mean, green_mean, blue_mean),
        image_std=(red_std, green_std, blue_std),
        rescale_factor=float(raw["rescale_factor"]),
        resample=str(raw["resample"]),
    )
    if not 1 <= spec.crop_size <= spec.shortest_edge <= 4096:
        raise ValueError("crop_size must be between 1 and shortest_edge, shortest_edge at most 4096")
    if spec.resample != "bicubic":
        raise ValueError(f"resample {spec.resample!r}: only bicubic is implemented")
    if not all(std > 0 for std in spec.image_std):
        raise ValueError("image_std must be positive")
    return spec


def _what_it_is(path: Path, expected: FileSpec) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: run git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not a model: the download went wrong"
    return f"has {path.stat().st_size:,} bytes where {expected.size:,} are expected: it is incomplete"


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _short_hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
