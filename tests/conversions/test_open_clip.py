"""open_clip's own checkpoints, converted, beside the golden vectors, ids and pixels of open_clip itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from clipsrv.errors import ConfigError, ModelCorruptError
from clipsrv.images.preprocess import preprocess_image
from clipsrv.manifest import TEXT, VISION
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings
from clipsrv.text.clean import cleaning
from clipsrv.text.opening import open_tokenizer
from conversions import verify
from conversions.checkpoint import open_checkpoint
from conversions.convert import Job, convert
from conversions.errors import CheckpointError
from tests.golden.images import digest
from tests.golden.texts import GOLDEN, filled, save_tokenizers, strings

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and the exporters warn of their own doings

GIVEN: dict[str, Any] = json.loads((GOLDEN / "open_clip.json").read_bytes())
KINDS = ("siglip", "roberta")


def silent(stage: str) -> None:
    """Nobody listens to the progress here."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both golden models as folders of open_clip's form; the first beside a config.json that would run code."""
    folder = tmp_path_factory.mktemp("open_clip")
    save_tokenizers(folder)
    for kind in KINDS:
        save_file(filled(GIVEN[kind]["shapes"]), folder / kind / "open_clip_model.safetensors")
        (folder / kind / "open_clip_config.json").write_text(json.dumps(GIVEN[kind]["config"]))
    remote = {"model_type": "siglip", "auto_map": {"AutoModel": "marqo_fashionSigLIP.MarqoFashionSigLIP"}}
    (folder / "siglip" / "config.json").write_text(json.dumps(remote))
    (folder / "siglip" / "marqo_fashionSigLIP.py").write_text("raise SystemExit('remote code was run')")
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="module")
def models(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    for kind, checkpoint in checkpoints.items():
        assert convert(Job(kind, folder, checkpoint, ("fp32", "int8", "int8-openvino")), silent) is not None
    return {kind: load_model(folder / kind, ModelSettings(device="cpu", threads=1)) for kind in KINDS}


@pytest.fixture
def checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """The fashion model's files but its weights, to damage."""
    for file in checkpoints["siglip"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_images_are_those_of_open_clip(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    images = [Image.open(GOLDEN / "preprocess" / name).convert("RGB") for name in GIVEN["image_names"]]
    pixels = np.stack([preprocess_image(image, model.manifest.preprocess) for image in images])
    assert [digest(one.astype("<f4")) for one in pixels] == GIVEN[kind]["pixels"]
    np.testing.assert_allclose(model.image_encoder.embed(pixels), GIVEN[kind]["images"], atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_texts_are_those_of_open_clip(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    tokens = [model.tokenizer.encode(strings()[place]) for place in GIVEN["text_places"]]
    longest = max(one.length for one in tokens)
    vectors = model.text_encoder.embed(np.stack([one.ids[:longest] for one in tokens]))
    np.testing.assert_allclose(vectors, GIVEN[kind]["texts"], atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_of_500_strings_are_those_of_open_clip(models: dict[str, Model], kind: str) -> None:
    tokenizer = models[kind].tokenizer
    assert tokenizer is not None
    for text, ids in zip(strings(), GIVEN[kind]["ids"], strict=True):
        assert tokenizer.encode(text).ids.tolist() == ids, ascii(text[:100])


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_tells_the_family_the_cleaning_and_the_scoring(models: dict[str, Model], kind: str) -> None:
    manifest = models[kind].manifest
    tokens = manifest.towers[TEXT].tokens
    assert (manifest.family, manifest.preprocess.crop_offset) == ("open_clip", "round")
    assert manifest.preprocess.resize == {"siglip": "squash", "roberta": "shortest_edge"}[kind]
    told = {"siglip": ("canonicalize", "read"), "roberta": ("whitespace", "ignored")}
    assert (tokens.clean, tokens.padding, tokens.kind) == (*told[kind], "unigram")
    assert manifest.scoring is not None
    assert manifest.scoring.kind == {"siglip": "sigmoid", "roberta": "softmax"}[kind]
    table = verify.from_json(manifest.parity)
    assert max(table[tower]["fp32"].worst_component for tower in (VISION, TEXT)) < 2e-6
    assert table[VISION]["int8"].relative_error < 0.06


def test_padding_cannot_change_a_text_beside_roberta(models: dict[str, Model]) -> None:
    model = models["roberta"]
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    tokens = model.tokenizer.encode("a red dress")
    assert tokens.length < 77
    short = model.text_encoder.embed(tokens.ids[None, : tokens.length])
    np.testing.assert_allclose(model.text_encoder.embed(tokens.ids[None]), short, atol=2e-6)


def change(checkpoint: Path, part: str, **settings: Any) -> None:
    path = checkpoint / "open_clip_config.json"
    config = json.loads(path.read_text())
    (config["model_cfg"][part] if part in config["model_cfg"] else config[part]).update(settings)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("part", "settings", "words"),
    [
        ("vision_cfg", {"timm_model_name": "fastvit_mci2"}, "timm_model_name 'fastvit_mci2'"),
        ("vision_cfg", {"timm_pool": "avg"}, "timm_pool 'avg'"),
        ("text_cfg", {"pool_type": "argmax"}, "pool_type 'argmax'"),
        ("text_cfg", {"no_causal_mask": False}, "no_causal_mask False"),
        ("text_cfg", {"embed_cls": True}, "embed_cls True"),
        ("text_cfg", {"tokenizer_kwargs": {"strip_sep_token": True}}, "strip_sep_token"),
        ("preprocess_cfg", {"resize_mode": "longest"}, "resize_mode 'longest'"),
        ("preprocess_cfg", {"size": 32}, "resizes to 32"),
    ],
)
def test_what_is_not_done_here_is_refused_by_name(
    checkpoint: Path, part: str, settings: dict[str, Any], words: str
) -> None:
    change(checkpoint, part, **settings)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(checkpoint, "", "", "")


def test_weights_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    weights = filled(GIVEN["siglip"]["shapes"])
    del weights["visual.trunk.norm.bias"]
    save_file(weights, checkpoint / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"Cannot load the weights .*norm\.bias"):
        convert(Job("m", tmp_path / "models", checkpoint), silent)


def test_pickled_weights_are_read_without_running_code(checkpoint: Path) -> None:
    weights = {name: torch.from_numpy(value) for name, value in filled(GIVEN["siglip"]["shapes"]).items()}
    (checkpoint / "open_clip_model.safetensors").unlink()
    torch.save({f"module.{name}": value for name, value in weights.items()}, checkpoint / "open_clip_pytorch_model.bin")
    opened = open_checkpoint(checkpoint, "", "", "")
    original = opened.family.load(checkpoint, opened.facts, safetensors=False)
    assert original.scoring.kind == "sigmoid"


def test_without_ftfy_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ConfigError, match=r"pip install --editable '.*\[open_clip\]'"):
        cleaning("whitespace")


def test_a_cleaning_of_a_later_version_is_refused(models: dict[str, Model], checkpoints: dict[str, Path]) -> None:
    text = models["roberta"].manifest.towers[TEXT]
    later = replace(text, tokens=replace(text.tokens, clean="fold"))
    with pytest.raises(ModelCorruptError, match="cleaned by 'fold', of which this version knows nothing"):
        open_tokenizer(checkpoints["roberta"] / "tokenizer.json", later)
