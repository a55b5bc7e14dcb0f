"""Texts in int8: written for new folders, left in fp32 where a folder had it so, blind to what shares their batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipsrv.manifest import MANIFEST_NAME, TEXT, VISION, ModelManifest, load_manifest, verify_files
from clipsrv.models.loading import load_model
from clipsrv.models.texts import embed_tokens
from clipsrv.settings import ModelSettings
from clipsrv.specs import FileSpec
from conversions import verify
from conversions.convert import Job, convert
from conversions.files import hash_files
from conversions.quantize import Quantized
from conversions.texts import towers_of

#: torch's tracer and the exporters warn of their own doings; on a busy machine the first export takes a minute.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


class Stages:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, stage: str) -> None:
        self.names.append(stage)


def id_of(manifest: ModelManifest, variant: str = "int8") -> str:
    return manifest.embedding_id(variant, manifest.preprocess.id)


@pytest.fixture(scope="module")
def new(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("new")
    assert convert(Job("m", models, tiny_checkpoint, ("fp32", "int8")), Stages()) is not None
    return models / "m"


@pytest.fixture(scope="module")
def old(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As every int8 folder was before int8 took texts."""
    models = tmp_path_factory.mktemp("old")
    job = Job("m", models, tiny_checkpoint, ("fp32", "int8"), exact_texts=True)
    assert convert(job, Stages()) is not None
    return models / "m"


def quantize_as_before(folder: Path) -> None:
    """Images in int8 as they were written before samples taught how: each weight rounded by itself."""
    manifest = load_manifest(folder)
    graph = manifest.towers[VISION].variants["int8"]
    Quantized.of(folder / manifest.towers[VISION].variants["fp32"]).for_onnxruntime(folder / graph)
    paths = [folder / graph, folder / f"{graph}.data"]
    written = {path.name: FileSpec(sha256=hash_files((path,)), size=path.stat().st_size) for path in paths}
    assert written[f"{graph}.data"] != manifest.files[f"{graph}.data"]
    (folder / MANIFEST_NAME).write_text(replace(manifest, files={**manifest.files, **written}).to_json())


def test_the_graph_for_openvino_is_of_images_alone_and_others_of_both_unless_texts_are_to_be_exact() -> None:
    for exact in (False, True):
        assert towers_of("int8-openvino", exact_texts=exact) == (VISION,)
        assert towers_of("fp16", exact_texts=exact) == (VISION, TEXT)
    assert towers_of("int8", exact_texts=False) == (VISION, TEXT)
    assert towers_of("int8", exact_texts=True) == (VISION,)


def test_a_new_folder_has_texts_in_int8_and_says_how_far_off_they_are(new: Path) -> None:
    manifest = load_manifest(new)
    verify_files(new, manifest)
    assert set(manifest.towers[TEXT].variants) == {"fp32", "int8"}
    table = verify.from_json(manifest.parity)
    assert 0 < table[TEXT]["int8"].relative_error < verify.LIMITS["int8"].relative
    assert {path.name for path in new.iterdir()} == {*manifest.files, "manifest.json"}


def test_images_are_the_same_beside_them_and_the_id_is_another_where_int8_computes_texts(new: Path, old: Path) -> None:
    ours, theirs = load_manifest(new), load_manifest(old)
    assert set(theirs.towers[TEXT].variants) == {"fp32"}
    for name in theirs.towers[VISION].variants.values():
        assert (ours.files[name], ours.files[f"{name}.data"]) == (theirs.files[name], theirs.files[f"{name}.data"])
    assert id_of(ours) != id_of(theirs)
    assert id_of(ours, "fp32") == id_of(theirs, "fp32")


def test_a_folder_keeps_its_int8_images_and_fp32_texts_and_its_id_when_it_is_converted_again(
    old: Path, tiny_checkpoint: Path
) -> None:
    quantize_as_before(old)
    before, stages = load_manifest(old), Stages()
    job = Job("m", old.parent, tiny_checkpoint, ("fp32", "fp16", "int8"), force=True)
    assert convert(job, stages) is not None
    after = load_manifest(old)
    verify_files(old, after)
    assert "fp16" in after.towers[TEXT].variants
    assert "int8" not in after.towers[TEXT].variants
    assert {name: spec for name, spec in after.files.items() if "int8" in name} == {
        name: spec for name, spec in before.files.items() if "int8" in name
    }
    assert id_of(after) == id_of(before)
    assert sum("keep their id" in stage for stage in stages.names) == 2
    assert len(stages.names) == job.stages  # texts in fp32 are one stage less, and told in one


def test_texts_that_would_be_too_far_off_stay_in_fp32_and_nothing_else_does(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, stages = verify.measure, Stages()

    def measure_badly(*arguments: object) -> verify.Table:
        table = measure(*arguments)  # type: ignore[arg-type]
        table[TEXT]["int8"] = replace(table[TEXT]["int8"], relative_error=0.5)
        return table

    monkeypatch.setattr(verify, "measure", measure_badly)
    table = convert(Job("m", tmp_path, tiny_checkpoint, ("fp32", "int8")), stages)
    assert table is not None
    assert set(table[TEXT]) == {"fp32"}
    manifest = load_manifest(tmp_path / "m")
    verify_files(tmp_path / "m", manifest)
    assert set(manifest.towers[TEXT].variants) == {"fp32"}
    assert set(manifest.towers[VISION].variants) == {"fp32", "int8"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {*manifest.files, "manifest.json"}
    assert any("too far" in stage for stage in stages.names)


def test_an_int8_text_is_the_same_to_the_bit_alone_and_beside_others_of_any_length(new: Path) -> None:
    model = load_model(new, ModelSettings(device="cpu", precision="int8", threads=2))
    assert model.text_encoder is not None
    assert model.tokenizer is not None
    texts = ["a dog", "a cat", "word " * 100, "a red dress with 12 white buttons", "", "two dogs"]
    tokens = [model.tokenizer.encode(text) for text in texts]
    alone = np.concatenate([embed_tokens(model.text_encoder, [one], 32) for one in tokens])
    for run_cost in (None, 0, 32):
        assert np.array_equal(embed_tokens(model.text_encoder, tokens, run_cost), alone)
    model.close()
