"""MetaCLIP 2 and Chinese-CLIP converted whole: CLIP's relatives, which read texts in other ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertTokenizerFast, XLMRobertaTokenizerFast

from clipsrv.manifest import TEXT, VISION, load_manifest
from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings
from clipsrv.text.opening import open_tokenizer
from conversions import verify
from conversions.convert import Job, convert
from tests.conversions.conftest import MAKE_CHECKPOINT
from tests.golden.texts import strings

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and the exporters warn of their own doings

KINDS: dict[str, tuple[str, str, int, Any]] = {
    "metaclip2-tiny": ("metaclip_2", "unigram", 77, XLMRobertaTokenizerFast),
    "chinese-clip-tiny": ("chinese_clip", "wordpiece", 52, BertTokenizerFast),
}


def silent(stage: str) -> None:
    """Nobody listens to the progress here."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in KINDS:
        subprocess.run([sys.executable, MAKE_CHECKPOINT, name, folder / name], check=True, capture_output=True)
    return {name: folder / name for name in KINDS}


@pytest.fixture(scope="module")
def converted(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    models = tmp_path_factory.mktemp("models")
    for name, checkpoint in checkpoints.items():
        assert convert(Job(name, models, checkpoint, ("fp32", "int8")), silent) is not None
    return {name: models / name for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_the_conversion_equals_the_original_to_the_rounding(converted: dict[str, Path], name: str) -> None:
    manifest = load_manifest(converted[name])
    table = verify.from_json(manifest.parity)
    for tower in (VISION, TEXT):
        assert (table[tower]["fp32"].worst_component < 2e-6, table[tower]["fp32"].differing_inputs) == (True, 0)
    assert table[VISION]["int8"].relative_error < 0.06
    family, kind, context, _ = KINDS[name]
    text = manifest.towers[TEXT]
    assert (manifest.family, text.tokens.kind, text.context_length) == (family, kind, context)
    assert manifest.scoring is not None
    assert (manifest.scoring.kind, manifest.identity["family"]) == ("softmax", family)


@pytest.mark.parametrize("name", KINDS)
def test_the_ids_of_500_strings_are_those_of_transformers(
    converted: dict[str, Path], checkpoints: dict[str, Path], name: str
) -> None:
    """Chinese-CLIP's over its real vocabulary, MetaCLIP 2's over a small one."""
    *_, context, kind = KINDS[name]
    tower = load_manifest(converted[name]).towers[TEXT]
    tokenizer = open_tokenizer(converted[name] / "tokenizer.json", tower)
    reference = kind.from_pretrained(checkpoints[name])
    for text in strings():
        ids = reference(text, padding="max_length", truncation=True, max_length=context)["input_ids"]
        assert tokenizer.encode(text).ids.tolist() == ids, ascii(text[:100])


@pytest.mark.parametrize("name", KINDS)
def test_padding_cannot_change_a_text(converted: dict[str, Path], name: str) -> None:
    model = load_model(converted[name], ModelSettings(device="cpu", threads=1))
    assert model.tokenizer is not None
    assert model.text_encoder is not None
    tokens = model.tokenizer.encode("猫の写真 a red dress")
    assert tokens.length < len(tokens.ids)
    short = model.text_encoder.embed(tokens.ids[None, : tokens.length])
    np.testing.assert_allclose(model.text_encoder.embed(tokens.ids[None]), short, atol=2e-6)
    model.close()
