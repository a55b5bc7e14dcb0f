"""SigLIP and SigLIP 2 converted whole, from tiny checkpoints of the committed script, and what of them is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import SiglipModel, SiglipVisionModel

from clipsrv.manifest import TEXT, VISION, load_manifest
from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings
from conversions import verify
from conversions.checkpoint import open_checkpoint
from conversions.convert import Job, convert
from conversions.errors import CheckpointError
from conversions.export import siglip_vision
from tests.conversions.conftest import MAKE_CHECKPOINT
from tests.conversions.zero_shot import worst_difference

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and the exporters warn of their own doings

KINDS = {"siglip-tiny": "siglip", "siglip2-tiny": "gemma"}


def silent(stage: str) -> None:
    """Nobody listens to the progress here."""


def make(geometry: str, folder: Path) -> Path:
    subprocess.run([sys.executable, MAKE_CHECKPOINT, geometry, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(name, tmp_path_factory.mktemp("checkpoints") / name) for name in KINDS}


@pytest.fixture(scope="module")
def converted(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both, in fp32 and both forms of int8."""
    models = tmp_path_factory.mktemp("models")
    for name, checkpoint in checkpoints.items():
        assert convert(Job(name, models, checkpoint, ("fp32", "int8", "int8-openvino")), silent) is not None
    return {name: models / name for name in KINDS}


@pytest.fixture
def checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A SigLIP 2 to damage."""
    return Path(shutil.copytree(checkpoints["siglip2-tiny"], tmp_path / "checkpoint"))


@pytest.mark.parametrize("name", KINDS)
def test_the_conversion_equals_the_original_to_the_rounding(converted: dict[str, Path], name: str) -> None:
    table = verify.from_json(load_manifest(converted[name]).parity)
    for tower in (VISION, TEXT):
        assert table[tower]["fp32"].worst_component < 2e-6
        assert table[tower]["fp32"].differing_inputs == 0
    for precision in ("int8", "int8-openvino"):
        assert 1e-4 < table[VISION][precision].relative_error < 0.05


@pytest.mark.parametrize("name", KINDS)
def test_the_manifest_tells_what_the_family_does(converted: dict[str, Path], name: str) -> None:
    manifest = load_manifest(converted[name])
    text = manifest.towers[TEXT]
    assert (manifest.family, text.tokens.kind, text.tokens.padding) == ("siglip", KINDS[name], "read")
    assert manifest.preprocess.resize == "squash"
    assert manifest.preprocess.resample == {"siglip-tiny": "bicubic", "siglip2-tiny": "bilinear"}[name]
    assert manifest.scoring is not None
    assert (manifest.scoring.kind, manifest.dimensions) == ("sigmoid", 64)
    assert manifest.identity["family"] == "siglip"


@pytest.mark.parametrize("template", ["a photo of {}", "{}"])
@pytest.mark.parametrize("name", KINDS)
def test_scores_of_a_siglip_are_those_of_transformers_zero_shot_pipeline(
    checkpoints: dict[str, Path], converted: dict[str, Path], name: str, template: str
) -> None:
    assert worst_difference(checkpoints[name], converted[name], template) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_vector_does_not_depend_on_its_batch(converted: dict[str, Path], precision: str) -> None:
    model = load_model(converted["siglip2-tiny"], ModelSettings(device="cpu", precision=precision, threads=2))
    size = model.manifest.preprocess.crop_size
    pixels = np.random.default_rng(0).standard_normal((5, 3, size, size)).astype(np.float32)
    pixels[1] *= 30
    together = model.image_encoder.embed(pixels)
    alone = np.concatenate([model.image_encoder.embed(one[None]) for one in pixels])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    model.close()


def test_a_text_is_the_same_vector_beside_longer_ones(converted: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    """The vector is taken at the last token, which is padding: it must be there whatever else is in the batch."""
    name = "siglip2-tiny"
    model = load_model(converted[name], ModelSettings(device="cpu", threads=1))
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    original = SiglipModel.from_pretrained(checkpoints[name])
    tokens = [model.tokenizer.encode(text) for text in ("cat", "猫の写真", "a dog and a cat " * 30)]
    assert {one.length for one in tokens} == {64}
    with torch.inference_mode():
        features = original.get_text_features(input_ids=torch.from_numpy(np.stack([one.ids for one in tokens])))
    expected = (features / features.norm(dim=-1, keepdim=True)).numpy()
    np.testing.assert_allclose(model.text_encoder.embed(np.stack([t.ids for t in tokens])), expected, atol=2e-6)
    model.close()


def test_int8_leaves_what_follows_the_pooling_in_float(converted: dict[str, Path]) -> None:
    graph = onnx.load(converted["siglip2-tiny"] / "vision.int8.onnx", load_external_data=False).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["MatMulIntegerToFloat"] == 1 + 2 * 6  # the patches, and two layers
    assert kinds["Gemm"] == 3  # after the pooling: the output, and both halves of the MLP


def test_the_pooling_that_mixes_first_is_the_models_own(checkpoints: dict[str, Path]) -> None:
    model = SiglipModel.from_pretrained(checkpoints["siglip2-tiny"]).train(False)
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.get_image_features(pixel_values=pixels)
        got = siglip_vision(model)(pixels)["image_embeds"]
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)
    assert isinstance(model.vision_model, type(SiglipVisionModel(model.config.vision_config).vision_model))


def change(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_texts_padded_on_the_left_are_refused(checkpoint: Path) -> None:
    change(checkpoint / "tokenizer_config.json", padding_side="left")
    with pytest.raises(CheckpointError, match="pads texts on the left"):
        open_checkpoint(checkpoint, "", "", "")


def test_a_tower_without_its_pooling_head_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["vision_config"]["vision_use_head"] = False
    change(checkpoint / "config.json", **config)
    with pytest.raises(CheckpointError, match="no pooling head"):
        open_checkpoint(checkpoint, "", "", "")


def test_a_cut_or_another_filter_is_refused(checkpoint: Path) -> None:
    steps = checkpoint / "preprocessor_config.json"
    kept = steps.read_text()
    change(steps, do_center_crop=True)
    with pytest.raises(CheckpointError, match="do_center_crop"):
        open_checkpoint(checkpoint, "", "", "")
    steps.write_text(kept)
    change(steps, resample=1)
    with pytest.raises(CheckpointError, match="neither bilinear"):
        open_checkpoint(checkpoint, "", "", "")


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"neither spiece\.model"):
        open_checkpoint(checkpoint, "", "", "")


@pytest.mark.parametrize(("kind", "words"), [("siglip2", "NaFlex.*siglip2-base-patch16-256"), ("blip", "BLIP's")])
def test_what_is_left_out_is_refused_by_name_with_what_to_use_instead(checkpoint: Path, kind: str, words: str) -> None:
    change(checkpoint / "config.json", model_type=kind)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(checkpoint, "", "", "")
