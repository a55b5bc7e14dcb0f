"""A checkpoint folder on this disk: is it CLIP, which files hold the weights, how does it want its images.

Reads JSON and hashes files; knows nothing of the Hub, and loads no weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsrv.documents import read_json
from clipsrv.specs import PreprocessSpec
from conversions.errors import CheckpointError

#: Best first: safetensors cannot carry code. An index names the shards of a large checkpoint, which are called so.
WEIGHTS = {
    "model.safetensors": "",
    "model.safetensors.index.json": "model-*.safetensors",
    "pytorch_model.bin": "",
    "pytorch_model.bin.index.json": "pytorch_model-*.bin",
}
CONFIG = "config.json"
#: Where the preprocessing is told: by transformers up to 4, and from 5 on, under "image_processor".
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TOKENIZER, VOCABULARY = "tokenizer.json", ("vocab.json", "merges.txt")
TOKENIZER_FILES = (TOKENIZER, *VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
#: Everything but the weights.
SMALL_FILES = (CONFIG, PREPROCESSOR, PROCESSOR, *TOKENIZER_FILES, *(name for name in WEIGHTS if "index" in name))

_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, as the file has it
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")


@dataclass(frozen=True)
class Checkpoint:
    """A usable CLIP checkpoint. `source` is what the manifest will say of it; `weights` are its weight files;
    `made_from` has a hash of each part of it."""

    folder: Path
    preprocess: PreprocessSpec
    dimensions: int
    context_length: int
    weights: tuple[Path, ...]
    source: Mapping[str, str] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.weights)


def open_checkpoint(folder: Path, repo: str, revision: str, license_: str) -> Checkpoint:
    """Reads and checks `folder`. Raises CheckpointError if it is not a CLIP checkpoint that clipsrv can serve."""
    if not folder.is_dir():
        raise CheckpointError(f"No checkpoint folder {folder}.")
    config = _read_json(folder / CONFIG)
    if config.get("model_type") != "clip":
        raise CheckpointError(
            f"{folder} is not a CLIP checkpoint: its {CONFIG} says model_type {config.get('model_type')!r}, "
            "not 'clip'. Only models of transformers' CLIPModel can be converted."
        )
    weights = weight_files(folder)
    spec = _preprocess(folder)
    image_size = (config.get("vision_config") or {}).get("image_size", 224)
    if image_size != spec.crop_size:
        raise CheckpointError(
            f"{folder} contradicts itself: its model takes {image_size} pixels and its preprocessing cuts "
            f"{spec.crop_size}."
        )
    if not _has_tokenizer(folder):
        raise CheckpointError(f"{folder} has no tokenizer: neither {TOKENIZER} nor {' and '.join(VOCABULARY)}.")
    try:
        weights_sha256 = hash_files(weights)
        made_from = {
            "weights": weights_sha256,
            "config": hash_files((folder / CONFIG,)),
            "preprocessing": spec.id,
            "tokenizer": hash_files(tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())),
        }
    except OSError as error:
        raise CheckpointError(f"Cannot read {error.filename}: {error.strerror}.") from None
    return Checkpoint(
        folder=folder,
        preprocess=spec,
        dimensions=int(config.get("projection_dim", 512)),
        context_length=int((config.get("text_config") or {}).get("max_position_embeddings", 77)),
        weights=weights,
        source={"repo": repo, "revision": revision, "license": license_, "weights_sha256": weights_sha256},
        made_from=made_from,
    )


def is_complete(folder: Path) -> bool:
    """Whether every kind of file is there; what they hold is not looked at."""
    try:
        weight_files(folder)
    except CheckpointError:
        return False
    described = any((folder / name).is_file() for name in (PREPROCESSOR, PROCESSOR))
    return described and (folder / CONFIG).is_file() and _has_tokenizer(folder)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files holding the weights, best format first. Raises CheckpointError if there are none, or not all."""
    for name in WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return (path,)
        weight_map = _read_json(path).get("weight_map")
        names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
        shards = tuple(folder / str(name) for name in names)
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing or not shards:
            raise CheckpointError(f"{folder} is incomplete: {', '.join(missing) or 'every shard'} is missing.")
        return shards
    raise CheckpointError(f"{folder} has no weights: none of model.safetensors and pytorch_model.bin is there.")


def hash_files(paths: tuple[Path, ...]) -> str:
    """sha256 of the file; of several, sha256 over their own sha256 digests in order."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def _has_tokenizer(folder: Path) -> bool:
    return (folder / TOKENIZER).is_file() or all((folder / name).is_file() for name in VOCABULARY)


def _preprocess(folder: Path) -> PreprocessSpec:
    """The facts of preprocessor_config.json, in its old form (sizes are numbers) or its new one (mappings); without
    one, of processor_config.json. transformers looks for them in the same order."""
    file = folder / PREPROCESSOR
    if not file.is_file() and (folder / PROCESSOR).is_file():
        file = folder / PROCESSOR
    raw = _read_json(file)
    raw = raw.get("image_processor", raw)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file} does not hold a JSON object under image_processor.")
    size, crop = raw.get("size", 224), raw.get("crop_size", 224)
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size
    height, width = (crop.get("height"), crop.get("width")) if isinstance(crop, dict) else (crop, crop)
    undone = [step for step in _STEPS if raw.get(step, True) is not True]
    if undone or height != width or not isinstance(shortest, int) or not isinstance(height, int):
        raise CheckpointError(
            f"{file} asks for other steps than CLIP's (resize the shortest edge, cut a square, "
            f"rescale, normalise): {', '.join(undone) or f'size {size}, crop_size {crop}'}."
        )
    if raw.get("resample", _BICUBIC) != _BICUBIC:
        raise CheckpointError(f"{file}: resample {raw['resample']} is not bicubic ({_BICUBIC}).")
    try:
        mean, std = (tuple(map(float, raw[key])) for key in ("image_mean", "image_std"))
        (red, green, blue), (red_std, green_std, blue_std) = mean, std
        return PreprocessSpec(
            shortest_edge=shortest,
            crop_size=height,
            image_mean=(red, green, blue),
            image_std=(red_std, green_std, blue_std),
            rescale_factor=float(raw.get("rescale_factor", 1 / 255)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} has no usable sizes, image_mean, image_std or rescale_factor: {error!r}."
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = read_json(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is not a CLIP checkpoint: it has no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return raw
