"""A model folder made ready to run: the device that runs is known, and whatever is wrong with the folder is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from clipsrv.errors import InferenceFailedError, ModelCorruptError, ModelNotFoundError
from clipsrv.models.folders import find_model
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import Decoding, ImageLimits, ModelSettings
from tests.support.model import DIMENSIONS, describe, vision_graph, write_model
from tests.support.photos import encode, opened, photo


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the small model to spoil."""
    return shutil.copytree(tiny_model, tmp_path / "tiny")


def test_the_model_says_what_runs(model: Model) -> None:
    assert (model.device, model.precision, model.threads) == ("cpu", "fp32", 1)
    assert model.text_encoder is not None
    assert model.tokenizer is not None


def test_auto_takes_the_cpu_where_there_is_nothing_better(tiny_model: Path) -> None:
    assert load_model(tiny_model, ModelSettings(device="auto", threads=1)).device == "cpu"


def test_the_text_tower_can_be_left_out(tiny_model: Path) -> None:
    model = load_model(tiny_model, ModelSettings(device="cpu", threads=1, text=False))
    assert model.text_encoder is None
    assert model.tokenizer is None
    model.warm_up([1])


def test_a_folder_without_text_tower_is_served_for_images(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "images-only", text=False), ModelSettings(device="cpu", threads=1))
    assert model.text_encoder is None


def test_an_unread_tower_is_not_hashed(folder: Path) -> None:
    (folder / "text.fp32.onnx").unlink()
    load_model(folder, ModelSettings(device="cpu", threads=1, text=False))


@pytest.mark.parametrize("name", ["vision.fp32.onnx", "text.fp32.onnx", "tokenizer.json"])
def test_one_changed_byte_in_any_file_is_refused(folder: Path, name: str) -> None:
    blob = bytearray((folder / name).read_bytes())
    blob[len(blob) // 2] ^= 1
    (folder / name).write_bytes(blob)
    with pytest.raises(ModelCorruptError, match=f"{name} differs from its manifest"):
        load_model(folder, ModelSettings(device="cpu", threads=1))


def test_external_weights_are_hashed_too(folder: Path) -> None:
    graph = onnx.load(folder / "vision.fp32.onnx")
    (folder / "vision.fp32.onnx").unlink()
    onnx.save(graph, folder / "vision.fp32.onnx", save_as_external_data=True, location="vision.fp32.onnx.data")
    rewrite_checksums(folder, "vision.fp32.onnx", "vision.fp32.onnx.data")
    load_model(folder, ModelSettings(device="cpu", threads=1))
    weights = folder / "vision.fp32.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(ModelCorruptError, match=r"vision\.fp32\.onnx\.data differs"):
        load_model(folder, ModelSettings(device="cpu", threads=1))


def test_a_graph_that_onnxruntime_cannot_read_is_a_corrupt_model(folder: Path) -> None:
    (folder / "vision.fp32.onnx").write_bytes(b"not a graph at all")
    rewrite_checksums(folder, "vision.fp32.onnx")
    with pytest.raises(ModelCorruptError, match="onnxruntime cannot load"):
        load_model(folder, ModelSettings(device="cpu", threads=1))


def test_a_graph_with_other_names_than_the_manifest_says_is_refused(folder: Path) -> None:
    graph = vision_graph()
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "images"
    onnx.save(graph, folder / "vision.fp32.onnx")
    rewrite_checksums(folder, "vision.fp32.onnx")
    with pytest.raises(ModelCorruptError, match="'images'"):
        load_model(folder, ModelSettings(device="cpu", threads=1))


def test_a_graph_of_other_dimensions_than_the_manifest_says_fails_the_warm_up(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"dimensions": {DIMENSIONS}', '"dimensions": 63'))
    model = load_model(folder, ModelSettings(device="cpu", threads=1))
    with pytest.raises(InferenceFailedError, match=r"shape \(1, 64\)"):
        model.warm_up([1])


def test_a_missing_known_model_names_the_command_that_makes_it(models_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there: tiny.*python -m conversions vit-l-14$"):
        find_model(models_dir, "vit-l-14")


def test_a_missing_unknown_model_names_the_list(models_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"python -m conversions --list$"):
        find_model(models_dir, "vit-z")


@pytest.mark.parametrize("name", ["../tiny", "", ".", "a/b", "tiny\n"])
def test_a_model_name_never_leaves_the_models_folder(models_dir: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        find_model(models_dir, name)


def test_the_model_that_comes_with_clipsrv_is_found_from_any_folder(tmp_path: Path) -> None:
    assert (find_model(tmp_path, "demo") / "manifest.json").is_file()


def test_decoding_options_change_the_ids_and_defaults_do_not(tiny_model: Path, model: Model) -> None:
    assert model.preprocessing_id == model.manifest.preprocess.id
    ids = {model.preprocessing_id: model.embedding_id}
    for decoding in (Decoding(fast=True), Decoding(exif_orientation=False), Decoding(False, True)):
        other = load_model(tiny_model, ModelSettings(device="cpu", threads=1, decoding=decoding, text=False))
        ids[other.preprocessing_id] = other.embedding_id
    assert len(ids) == len(set(ids.values())) == 4


def test_fast_decoding_changes_large_jpegs_slightly_and_nothing_else(tiny_model: Path, model: Model) -> None:
    fast = load_model(tiny_model, ModelSettings(device="cpu", threads=1, decoding=Decoding(fast=True), text=False))
    large, png = photo("china.jpg"), encode(opened().resize((320, 213)))
    limits = ImageLimits()
    assert 0 < np.abs(fast.read_image(large, limits) - model.read_image(large, limits)).mean() < 0.1
    assert np.array_equal(fast.read_image(png, limits), model.read_image(png, limits))


def rewrite_checksums(folder: Path, *names: str) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in names:
        spec = describe(folder / name)
        manifest["files"][name] = {"sha256": spec.sha256, "size": spec.size}
    path.write_text(json.dumps(manifest))
