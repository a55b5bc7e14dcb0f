"""A checkpoint folder on this disk: of which family it is, what it wants of images and texts, what it was made of.

Reads JSON and hashes files; knows nothing of the Hub, and loads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conversions.errors import CheckpointError
from conversions.families.family import Facts, Family
from conversions.families.table import family_of
from conversions.files import TOKENIZER_FILES, config_of, has_tokenizer, hash_files, read_object, weight_files


@dataclass(frozen=True)
class Checkpoint:
    """A usable checkpoint. `source` is what the manifest will say of it, `weights` are its weight files; of each part
    `made_from` has a hash."""

    folder: Path
    family: Family
    facts: Facts
    weights: tuple[Path, ...]
    source: Mapping[str, str] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.weights)


def open_checkpoint(folder: Path, repo: str, revision: str, license_: str) -> Checkpoint:
    """Reads and checks `folder`. Raises CheckpointError if it is not a checkpoint that clipsrv can serve."""
    if not folder.is_dir():
        raise CheckpointError(f"No checkpoint folder {folder}.")
    config = read_object(config_of(folder))
    family = family_of(config, folder)
    weights = weight_files(folder)
    facts = family.facts(folder, config)
    if facts.image_size != facts.preprocess.crop_size:
        raise CheckpointError(
            f"{folder} contradicts itself: its model takes {facts.image_size} pixels and its preprocessing cuts "
            f"{facts.preprocess.crop_size}."
        )
    if not has_tokenizer(folder):
        raise CheckpointError(f"{folder} has no tokenizer: neither tokenizer.json nor the files it is made from.")
    try:
        weights_sha256 = hash_files(weights)
        made_from = {
            "weights": weights_sha256,
            "config": hash_files((config_of(folder),)),
            "preprocessing": facts.preprocess.id,
            "tokenizer": hash_files(tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())),
        }
    except OSError as error:
        raise CheckpointError(f"Cannot read {error.filename or folder}: {error.strerror or error}.") from None
    source = {"repo": repo, "revision": revision, "license": license_, "weights_sha256": weights_sha256}
    return Checkpoint(folder, family, facts, weights, source, made_from)
