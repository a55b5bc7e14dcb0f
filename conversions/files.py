"""The files of a checkpoint: their names, which hold the weights, what they hash to. Knows no family of models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from clipsrv.documents import open_file, read_json
from conversions.errors import CheckpointError

#: Best first: safetensors cannot carry code. An index names the shards of a large checkpoint, which are called so.
WEIGHTS = {
    "model.safetensors": "",
    "model.safetensors.index.json": "model-*.safetensors",
    "pytorch_model.bin": "",
    "pytorch_model.bin.index.json": "pytorch_model-*.bin",
}
#: The same in open_clip's own form.
OPEN_CLIP_WEIGHTS = {"open_clip_model.safetensors": "", "open_clip_pytorch_model.bin": ""}
CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
#: Where the preprocessing is told: by transformers up to 4, and from 5 on, under "image_processor".
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TOKENIZER, TOKENIZER_CONFIG, SPIECE = "tokenizer.json", "tokenizer_config.json", "spiece.model"
#: The largest known has 35 MB.
MAX_TOKENIZER_BYTES = 256 * 2**20
#: Each alone is a tokenizer: the files that go together.
VOCABULARIES = ((TOKENIZER,), ("vocab.json", "merges.txt"), (SPIECE,), ("vocab.txt",))
TOKENIZER_FILES = (
    *(name for names in VOCABULARIES for name in names),
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
)
#: Everything but the weights.
SMALL_FILES = (
    CONFIG,
    OPEN_CLIP_CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    *TOKENIZER_FILES,
    *(name for name in WEIGHTS if "index" in name),
)


def is_open_clip(folder: Path) -> bool:
    """Whether open_clip's own files decide: transformers has none, or only by running code that lies beside them."""
    if not (folder / OPEN_CLIP_CONFIG).is_file():
        return False
    return not (folder / CONFIG).is_file() or "auto_map" in read_object(folder / CONFIG)


def config_of(folder: Path) -> Path:
    """The file that says what the model is."""
    return folder / (OPEN_CLIP_CONFIG if is_open_clip(folder) else CONFIG)


def weights_by_name(folder: Path) -> dict[str, str]:
    """Names of files of weights, best first, with the pattern of the shards that each indexes."""
    return OPEN_CLIP_WEIGHTS if is_open_clip(folder) else WEIGHTS


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files holding the weights, best format first. Raises CheckpointError if there are none, or not all."""
    for name in weights_by_name(folder):
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return (path,)
        weight_map = read_object(path).get("weight_map")
        names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
        shards = tuple(folder / str(name) for name in names)
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing or not shards:
            raise CheckpointError(f"{folder} is incomplete: {', '.join(missing) or 'every shard'} is missing.")
        return shards
    raise CheckpointError(f"{folder} has no weights: none of {', '.join(weights_by_name(folder))} is there.")


def has_tokenizer(folder: Path) -> bool:
    """Whether any kind of vocabulary is there."""
    return any(all((folder / name).is_file() for name in names) for names in VOCABULARIES)


def is_complete(folder: Path) -> bool:
    """Whether every kind of file is there; what they hold is not looked at."""
    try:
        weight_files(folder)
    except CheckpointError:
        return False
    described = is_open_clip(folder) or any((folder / name).is_file() for name in (PREPROCESSOR, PROCESSOR))
    return described and config_of(folder).is_file() and has_tokenizer(folder)


def hash_files(paths: tuple[Path, ...]) -> str:
    """sha256 of the file; of several, sha256 over their own sha256 digests in order."""
    digests = []
    for path in paths:
        with open_file(path) as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def read_object(path: Path, max_bytes: int = 4 * 2**20) -> dict[str, Any]:
    """The JSON object in `path`. Raises CheckpointError."""
    try:
        raw = read_json(path, max_bytes)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it has no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return raw
