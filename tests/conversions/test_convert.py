"""Whole conversions of a tiny checkpoint, in the process of the tests. Slow only for importing torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import CLIPModel

from clipsrv.manifest import TEXT, VISION, load_manifest, verify_files
from clipsrv.models.loading import load_model
from clipsrv.models.scoring import TEMPLATE
from clipsrv.settings import ModelSettings
from conversions import convert as convert_module
from conversions import verify
from conversions.checkpoint import open_checkpoint
from conversions.convert import Job, convert, reference
from conversions.errors import CheckpointError, ConversionError, ParityError
from conversions.families.clip import ClipOriginal
from conversions.inspection import verify_folder
from tests.conversions.zero_shot import worst_difference

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and the exporters warn of their own doings


def silent(stage: str) -> None:
    """Nobody listens to the progress here."""


def job(checkpoint: Path, models: Path, name: str = "m", **changes: Any) -> Job:
    return replace(Job(name, models, checkpoint), **changes)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_the_folder_holds_what_its_manifest_says_and_nothing_else(converted_model: Path, tiny_checkpoint: Path) -> None:
    manifest = load_manifest(converted_model)
    verify_files(converted_model, manifest)
    assert {path.name for path in converted_model.iterdir()} == {*manifest.files, "manifest.json"}
    graphs = [f"{tower}.{precision}.onnx" for tower in (VISION, TEXT) for precision in ("fp32", "fp16")]
    assert set(manifest.files) == {"tokenizer.json", *graphs, *(f"{graph}.data" for graph in graphs)}
    assert manifest.source["weights_sha256"] == open_checkpoint(tiny_checkpoint, "", "", "").source["weights_sha256"]
    assert (manifest.dimensions, manifest.towers[TEXT].context_length) == (32, 77)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in converted_model.iterdir())


@pytest.mark.parametrize("template", [TEMPLATE, "{}"])
def test_scores_of_a_clip_are_those_of_transformers_zero_shot_pipeline(
    converted_model: Path, tiny_checkpoint: Path, template: str
) -> None:
    assert load_manifest(converted_model).scoring is not None
    assert worst_difference(tiny_checkpoint, converted_model, template) < 1e-5


def test_the_manifest_carries_the_measured_parity_and_fp32_is_within_rounding(converted_model: Path) -> None:
    table = verify.from_json(load_manifest(converted_model).parity)
    for tower in (VISION, TEXT):
        assert set(table[tower]) == {"fp32", "fp16"}
        assert table[tower]["fp32"].worst_component < 1e-6
        assert 1e-6 < table[tower]["fp16"].worst_component < 2e-3
        assert table[tower]["fp16"].differing_inputs == 0


def test_fp32_graphs_use_plain_operators_only_and_batches_rows_and_lengths_are_free(converted_model: Path) -> None:
    texts = {"input_ids": [True, True], "paths": [True, True], "places": [True]}
    for tower, free in ((VISION, {"pixel_values": [True, False, False, False]}), (TEXT, texts)):
        graph = onnx.load(converted_model / f"{tower}.fp32.onnx", load_external_data=False)
        assert {node.domain for node in graph.graph.node} == {""}
        assert [opset.domain for opset in graph.opset_import] == [""]
        found = {
            one.name: [bool(size.dim_param) for size in one.type.tensor_type.shape.dim] for one in graph.graph.input
        }
        assert found == free


def test_fp16_graphs_are_fused_and_half_as_large_and_speak_float32(converted_model: Path) -> None:
    for tower in (VISION, TEXT):
        graph = onnx.load(converted_model / f"{tower}.fp16.onnx", load_external_data=False).graph
        assert {"Attention", "QuickGelu", "SkipLayerNormalization"} <= {node.op_type for node in graph.node}
        assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        sizes = [(converted_model / f"{tower}.{precision}.onnx.data").stat().st_size for precision in ("fp16", "fp32")]
        # Of texts in fp32 the begin mark's constants and the mask are in it too: much only beside so small a model.
        assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.01 if tower == VISION else 0.05)


def test_text_needs_no_attention_mask_whatever_the_padding(converted_model: Path, tiny_checkpoint: Path) -> None:
    """Ids alone, padded with any token or not at all, give what the original gives with its mask."""
    model = load_model(converted_model, ModelSettings(device="cpu", precision="fp32", threads=1))
    assert model.text_encoder is not None
    assert model.tokenizer is not None
    original = CLIPModel.from_pretrained(tiny_checkpoint)
    end = original.config.text_config.vocab_size - 1
    ids = model.tokenizer.encode("a photo of the cat").ids
    length = int((ids == end).argmax()) + 1
    bare = ids[None, :length]
    with torch.inference_mode():
        padded = torch.tensor(np.concatenate([bare, np.zeros((1, 9), np.int64)], axis=1))
        mask = (torch.arange(length + 9) < length).long()[None]
        features = original.get_text_features(input_ids=padded, attention_mask=mask).numpy()
    expected = features / np.linalg.norm(features, axis=-1, keepdims=True)
    for padding in (0, 7, end):
        tail = np.full((1, 20), padding, np.int64)
        got = model.text_encoder.embed(np.concatenate([bare, tail], axis=1))
        np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(model.text_encoder.embed(bare), expected, atol=1e-6)


def test_converting_again_does_nothing_until_forced_or_asked_for_more(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert convert(job(tiny_checkpoint, tmp_path), silent) is not None
    first = load_manifest(tmp_path / "m")
    assert convert(job(tiny_checkpoint, tmp_path), silent) is None
    assert convert(job(tiny_checkpoint, tmp_path, precisions=("fp32", "fp16")), silent) is not None
    assert "fp16" in load_manifest(tmp_path / "m").towers[VISION].variants
    assert convert(job(tiny_checkpoint, tmp_path, force=True), silent) is not None
    again = load_manifest(tmp_path / "m")
    assert again.files == first.files  # the same bytes: a conversion is reproducible
    assert {path.name for path in tmp_path.iterdir()} == {"m", ".lock"}


def change_config(checkpoint: Path, tower: str, **facts: object) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config[f"{tower}_config"].update(facts)
    (checkpoint / "config.json").write_text(json.dumps(config))


def change_vocabulary(checkpoint: Path) -> None:
    """Swaps two letters: the same weights read other texts."""
    rules = json.loads((checkpoint / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["q"], vocabulary["z"] = vocabulary["z"], vocabulary["q"]
    (checkpoint / "tokenizer.json").write_text(json.dumps(rules))


def change_preprocessing(checkpoint: Path) -> None:
    steps = json.loads((checkpoint / "preprocessor_config.json").read_text())
    steps["size"]["shortest_edge"] = 256
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(steps))


def embedding_id(folder: Path) -> str:
    manifest = load_manifest(folder)
    return manifest.embedding_id("fp32", manifest.preprocess.id)


MENDINGS: dict[str, Callable[[Path], None]] = {
    "config": lambda checkpoint: change_config(checkpoint, "vision", hidden_act="gelu"),
    "tokenizer": change_vocabulary,
    "preprocessing": change_preprocessing,
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", MENDINGS)
def test_a_checkpoint_mended_in_any_part_is_converted_again_and_has_another_embedding_id(
    checkpoint: Path, converted_model: Path, tmp_path: Path, part: str
) -> None:
    """The weights stay the same."""
    place = Path(shutil.copytree(converted_model, tmp_path / "models" / "m"))
    before, weights = embedding_id(place), load_manifest(place).source["weights_sha256"]
    assert convert(job(checkpoint, tmp_path / "models"), silent) is None
    MENDINGS[part](checkpoint)
    assert convert(job(checkpoint, tmp_path / "models"), silent) is not None
    assert convert(job(checkpoint, tmp_path / "models"), silent) is None
    assert embedding_id(place) != before
    assert load_manifest(place).source["weights_sha256"] == weights


def as_format_1(folder: Path) -> None:
    """What an earlier version wrote."""
    document = json.loads((folder / "manifest.json").read_text())
    for name in ("family", "made_from", "identity"):
        del document[name]
    (folder / "manifest.json").write_text(json.dumps(document | {"format": 1}))


@pytest.mark.timeout(400)
def test_a_folder_of_format_1_keeps_its_id_while_it_gives_the_originals_vectors(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Also with a further precision; another once the config was mended, of which its manifest knows nothing."""
    models = tmp_path / "models"
    change_config(checkpoint, "vision", hidden_act="gelu")
    convert(job(checkpoint, models), silent)
    as_format_1(models / "m")
    old = embedding_id(models / "m")
    assert convert(job(checkpoint, models), silent) is None
    assert json.loads((models / "m" / "manifest.json").read_text())["format"] == 1
    assert convert(job(checkpoint, models, precisions=("fp32", "fp16")), silent) is not None
    assert (embedding_id(models / "m"), load_manifest(models / "m").identity) == (old, {})
    assert convert(job(checkpoint, models, precisions=("fp32", "fp16"), force=True), silent) is not None
    assert embedding_id(models / "m") == old
    as_format_1(models / "m")
    change_config(checkpoint, "vision", hidden_act="quick_gelu")
    assert convert(job(checkpoint, models), silent) is not None
    assert embedding_id(models / "m") != old


def test_a_checkpoint_saved_by_transformers_5_converts(checkpoint: Path, tmp_path: Path) -> None:
    """Its preprocessing lies in processor_config.json; with both files there the older one decides, as there."""
    steps = json.loads((checkpoint / "preprocessor_config.json").read_text())
    saved = {"image_processor": steps, "processor_class": "CLIPProcessor"}
    (checkpoint / "processor_config.json").write_text(json.dumps(saved))
    (checkpoint / "preprocessor_config.json").rename(checkpoint / "aside.json")
    convert(job(checkpoint, tmp_path / "models"), silent)
    first = embedding_id(tmp_path / "models" / "m")
    (checkpoint / "aside.json").rename(checkpoint / "preprocessor_config.json")
    saved["image_processor"] = steps | {"size": {"shortest_edge": 300}}
    (checkpoint / "processor_config.json").write_text(json.dumps(saved))
    assert convert(job(checkpoint, tmp_path / "models"), silent) is None
    assert embedding_id(tmp_path / "models" / "m") == first


def test_a_damaged_folder_is_converted_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(job(tiny_checkpoint, tmp_path), silent)
    data = tmp_path / "m" / "vision.fp32.onnx.data"
    data.write_bytes(data.read_bytes()[:-100])
    assert convert(job(tiny_checkpoint, tmp_path), silent) is not None
    verify_files(tmp_path / "m", load_manifest(tmp_path / "m"))


def test_pickled_weights_vocabulary_files_and_a_true_end_token_convert_too(checkpoint: Path, tmp_path: Path) -> None:
    """pytorch_model.bin as three of OpenAI's repositories have it, no tokenizer.json, and pooling at the real id."""
    CLIPModel.from_pretrained(checkpoint).save_pretrained(checkpoint, safe_serialization=False)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "tokenizer.json").unlink()
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["eos_token_id"] = config["text_config"]["vocab_size"] - 1
    (checkpoint / "config.json").write_text(json.dumps(config))
    table = convert(job(checkpoint, tmp_path / "models"), silent)
    assert table is not None
    assert table[TEXT]["fp32"].worst_component < 1e-6


def spoil(model: CLIPModel) -> None:
    with torch.no_grad():
        model.visual_projection.weight[0] *= 1.001


def test_a_conversion_that_differs_is_not_kept_and_the_old_folder_stays(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exported graph is made from slightly other weights than the reference ran on: verification must see it."""
    convert(job(tiny_checkpoint, tmp_path), silent)
    before = load_manifest(tmp_path / "m")
    real: Callable[..., object] = convert_module._write_tower

    def write_spoilt(original: ClipOriginal, *arguments: object) -> object:
        spoil(original.model)
        return real(original, *arguments)

    monkeypatch.setattr(convert_module, "_write_tower", write_spoilt)
    with pytest.raises(ParityError, match="vision fp32"):
        convert(job(tiny_checkpoint, tmp_path, force=True), silent)
    assert load_manifest(tmp_path / "m") == before
    verify_files(tmp_path / "m", before)
    assert {path.name for path in tmp_path.iterdir()} == {"m", ".lock"}


def test_a_failure_of_the_exporter_is_a_conversion_error(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("the exporter is broken\nwith a long tail")

    monkeypatch.setattr("conversions.towers.export_tower", fail)
    with pytest.raises(ConversionError, match=r"nothing was written: RuntimeError: the exporter is broken$"):
        convert(job(tiny_checkpoint, tmp_path), silent)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_weights_cut_short_are_a_checkpoint_error(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="Cannot load the weights"):
        convert(job(checkpoint, tmp_path / "models"), silent)


@pytest.mark.parametrize("deeper", [True, False])
def test_weights_that_do_not_fit_the_config_are_refused_not_made_up(
    checkpoint: Path, tmp_path: Path, deeper: bool
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1 if deeper else -1
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="are missing" if deeper else "do not belong to CLIP"):
        reference(open_checkpoint(checkpoint, "", "", ""), silent)


def test_verify_measures_again_with_the_checkpoint_and_says_what_it_could_not_without(
    converted_model: Path, tiny_checkpoint: Path
) -> None:
    measured = verify_folder(converted_model, tiny_checkpoint, offline=True, say=silent)
    assert "files are as they were converted" in measured
    assert "not measured again" not in measured
    assert "not measured again" in verify_folder(converted_model, None, offline=True, say=silent)


def test_verify_refuses_another_checkpoint(converted_model: Path, checkpoint: Path) -> None:
    CLIPModel(CLIPModel.from_pretrained(checkpoint).config).save_pretrained(checkpoint)
    with pytest.raises(CheckpointError, match="was not made from this checkpoint"):
        verify_folder(converted_model, checkpoint, offline=True, say=silent)


def test_verify_says_what_of_the_checkpoint_changed(converted_model: Path, checkpoint: Path) -> None:
    change_config(checkpoint, "vision", hidden_act="gelu")
    change_preprocessing(checkpoint)
    with pytest.raises(CheckpointError, match="before its config and preprocessing changed: convert it again"):
        verify_folder(converted_model, checkpoint, offline=True, say=silent)
