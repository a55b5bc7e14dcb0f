"""What counts as a CLIP checkpoint. Folders of a few JSON files; no weights are loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from conversions.checkpoint import open_checkpoint
from conversions.errors import CheckpointError
from conversions.files import hash_files, weight_files

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
CONFIG = {"model_type": "clip", "projection_dim": 768, "vision_config": {"image_size": 336}, "text_config": {}}
NEW_FORM = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "resample": 3}
OLD_FORM = {"size": 336, "crop_size": 336, "resample": 3, "do_resize": True, "do_center_crop": True}


def write(folder: Path, config: object = CONFIG, preprocessor: dict[str, Any] = NEW_FORM) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD, **preprocessor}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def opened(folder: Path) -> Any:
    return open_checkpoint(folder, "someone/clip", "main", "MIT")


@pytest.mark.parametrize("preprocessor", [NEW_FORM, OLD_FORM], ids=["mappings", "numbers"])
def test_both_forms_of_the_preprocessor_config_give_the_same_facts(
    tmp_path: Path, preprocessor: dict[str, Any]
) -> None:
    checkpoint = opened(write(tmp_path, preprocessor=preprocessor))
    spec = checkpoint.facts.preprocess
    assert (spec.shortest_edge, spec.crop_size, spec.rescale_factor) == (336, 336, 1 / 255)
    assert (list(spec.image_mean), list(spec.image_std)) == (MEAN, STD)
    assert (checkpoint.facts.dimensions, checkpoint.facts.context_length) == (768, 77)
    assert checkpoint.source == {
        "repo": "someone/clip",
        "revision": "main",
        "license": "MIT",
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
    }


@pytest.mark.parametrize(
    ("preprocessor", "words"),
    [
        ({**NEW_FORM, "do_center_crop": False}, "do_center_crop"),
        ({**NEW_FORM, "do_normalize": False}, "do_normalize"),
        ({**NEW_FORM, "crop_size": {"height": 336, "width": 224}}, "crop_size"),
        ({**NEW_FORM, "size": {"height": 336, "width": 337}}, "size"),
        ({**NEW_FORM, "resample": 1}, "neither bilinear"),
        ({**NEW_FORM, "image_mean": [0.5]}, "image_mean"),
        ({**NEW_FORM, "size": 224, "crop_size": 224}, "336 pixels"),
    ],
)
def test_preprocessing_that_is_not_clips_is_refused_by_name(
    tmp_path: Path, preprocessor: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        opened(write(tmp_path, preprocessor=preprocessor))


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {"model_type": ["clip"]}, {}, [], "clip"])
def test_another_model_type_is_refused(tmp_path: Path, config: object) -> None:
    with pytest.raises(CheckpointError, match=r"none of chinese_clip, clip, metaclip_2, siglip|JSON object"):
        opened(write(tmp_path, config=config))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        opened(tmp_path)


def test_a_config_cut_short_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "config.json").write_text('{"model_type": "cl')
    with pytest.raises(CheckpointError, match=r"Cannot read .*config\.json"):
        opened(tmp_path)


def test_vocabulary_and_merges_do_for_a_tokenizer(tmp_path: Path) -> None:
    (write(tmp_path) / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    assert opened(tmp_path).facts.dimensions == 768


def test_safetensors_win_over_pickles(tmp_path: Path) -> None:
    (write(tmp_path) / "pytorch_model.bin").write_bytes(b"pickle")
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    assert [path.name for path in weight_files(tmp_path)] == ["pytorch_model.bin"]


def test_shards_are_all_needed_and_hashed_together(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").write_bytes(b"1")
    with pytest.raises(CheckpointError, match=r"two\.safetensors is missing"):
        weight_files(tmp_path)
    (tmp_path / "two.safetensors").write_bytes(b"2")
    shards = weight_files(tmp_path)
    assert [path.name for path in shards] == ["one.safetensors", "two.safetensors"]
    before = hash_files(shards)
    (tmp_path / "two.safetensors").write_bytes(b"3")
    assert hash_files(shards) != before
