"""The contract of a model folder: what contradicts itself is refused in words, and files are proven by their hashes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipsrv.errors import ModelCorruptError, ModelNotFoundError
from clipsrv.manifest import ModelManifest, list_models, load_manifest, verify_files
from clipsrv.specs import FileSpec, ScoringSpec
from tests.support.model import SPEC

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def manifest(tiny_model: Path) -> ModelManifest:
    return load_manifest(tiny_model)


@pytest.fixture
def spoil(tiny_model: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A folder whose manifest was changed by the function given."""

    def spoil(change: Callable[[dict[str, Any]], Any]) -> Path:
        document = json.loads((tiny_model / "manifest.json").read_text())
        change(document)
        (tmp_path / "manifest.json").write_text(json.dumps(document))
        return tmp_path

    return spoil


def test_a_manifest_reads_back_as_it_was_written(manifest: ModelManifest, tmp_path: Path) -> None:
    manifest = replace(
        manifest,
        made_from={"config": "0" * 64},
        identity={"vision.epsilon": 1e-6, "text.end": 7},
        scoring=ScoringSpec("sigmoid", 112.3, -16.5),
    )
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    assert load_manifest(tmp_path) == manifest


@pytest.mark.parametrize("folder", ["nowhere", "a-file/below"])
def test_no_manifest_is_no_model(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(ModelNotFoundError, match=r"it has no manifest\.json"):
        load_manifest(tmp_path / folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}", b"[" * 100_000, b'{"format": 1}']
)
def test_what_is_no_manifest_is_corrupt(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(ModelCorruptError, match=r"Cannot read|is not a model manifest"):
        load_manifest(tmp_path)


def test_a_manifest_that_cannot_be_opened_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ModelCorruptError, match=r"Cannot read .*: Is a directory"):
        load_manifest(tmp_path)


@pytest.mark.timeout(20)
def test_a_named_pipe_is_never_waited_for(manifest: ModelManifest, tiny_model: Path, tmp_path: Path) -> None:
    """As a manifest, as a model folder, and as a file that a manifest names."""
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "manifest.json")
    with pytest.raises(ModelCorruptError, match=r"Cannot read .*: it is not a regular file"):
        load_manifest(tmp_path / "piped")
    os.mkfifo(tmp_path / "pipe")
    assert list_models(tmp_path) == {}
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ModelCorruptError, match=r"Cannot read .*tokenizer\.json: it is not a regular file"):
        verify_files(tmp_path, manifest, ["tokenizer.json"])


def test_a_manifest_of_any_size_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelCorruptError, match="more than 4,194,304 bytes"):
        load_manifest(tmp_path)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "format 3": lambda m: m.update(format=3),
    "name": lambda m: m.update(name="../up"),
    "dimensions": lambda m: m.update(dimensions=0),
    "65536, not 1000000000": lambda m: m.update(dimensions=10**9),
    "not 512.5": lambda m: m.update(dimensions=512.5),
    "not True": lambda m: m.update(dimensions=True),
    "not '512'": lambda m: m.update(dimensions="512"),
    "context_length": lambda m: m["towers"]["text"].update(context_length=10**9),
    "padding 'some'": lambda m: m["towers"]["text"]["tokens"].update(padding="some"),
    "pad_id must be": lambda m: m["towers"]["text"]["tokens"].update(pad_id=-1),
    "scoring must be softmax or sigmoid": lambda m: m.update(scoring={"kind": "argmax", "scale": 1, "bias": 0}),
    "size must be": lambda m: m["files"]["tokenizer.json"].update(size=-1),
    "None should be text": lambda m: m["source"].update(license=None),
    "7 should be text": lambda m: m["towers"]["text"].update(tokenizer=7),
    "should be text or a number": lambda m: m.update(identity={"activation": ["gelu"]}),
    "surrogates not allowed": lambda m: m["source"].update(note="\ud800"),
    "Out of range float values": lambda m: m["preprocess"].update(rescale_factor=float("nan")),
    "are not JSON compliant": lambda m: m["preprocess"].update(image_std=[1, 1, float("inf")]),
    "rescale_factor must be positive": lambda m: m["preprocess"].update(rescale_factor=0),
    "could not convert string to float": lambda m: m.update(parity={"vision": {"fp32": {"relative_error": "none"}}}),
    "weights_sha256": lambda m: m["source"].pop("weights_sha256"),
    "towers must be": lambda m: m["towers"].pop("vision"),
    "and, if there is one, text": lambda m: m["towers"].update(audio=m["towers"]["vision"]),
    "not a plain file name": lambda m: m["files"].update({"../x": {"sha256": "0", "size": 1}}),
    "has no checksum": lambda m: m["files"].pop("tokenizer.json"),
    "needs an fp32 variant": lambda m: m["towers"]["vision"].update(variants={}),
    "shortest_edge must be": lambda m: m["preprocess"].update(crop_size=500),
    "to 4096, not 5000": lambda m: m["preprocess"].update(shortest_edge=5000),
    "only bicubic": lambda m: m["preprocess"].update(resample="lanczos"),
    "only shortest_edge and squash": lambda m: m["preprocess"].update(resize="longest"),
    "image_std must be positive": lambda m: m["preprocess"].update(image_std=[0, 1, 1]),
    "image_mean must be three numbers": lambda m: m["preprocess"].update(image_mean=[0.5, 0.5]),
    "unexpected keyword": lambda m: m["towers"]["vision"].update(colour="red"),
    "KeyError": lambda m: m.pop("created"),
    "AttributeError": lambda m: m.update(towers=[]),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_manifest_that_contradicts_itself_is_refused_with_the_reason(said: str, spoil: Callable[..., Path]) -> None:
    with pytest.raises(ModelCorruptError, match="Convert the model again") as caught:
        load_manifest(spoil(CHANGES[said]))
    assert said in caught.value.message


@pytest.mark.parametrize("facts", [{"image_mean": (0.5, 0.5, float("nan"))}, {"rescale_factor": float("inf")}])
def test_preprocessing_that_is_no_number_cannot_even_be_built(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"image_mean must be three numbers|rescale_factor must be positive"):
        replace(SPEC, **facts)


def test_files_are_proven_by_size_and_hash(manifest: ModelManifest, tiny_model: Path) -> None:
    verify_files(tiny_model, manifest)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"half of it", "has 10 bytes where 100 are expected"),
        (bytes(100), r"differs from its manifest \(sha256 cd00e292c597"),
    ],
    ids=["pointer", "web page", "incomplete", "other"],
)
def test_a_file_that_is_not_the_one_is_named_with_the_likely_reason(
    manifest: ModelManifest, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    asked = replace(manifest, files={"model.onnx": FileSpec("0" * 64, 100)})
    with pytest.raises(ModelCorruptError, match=f"model.onnx.*{said}.*Convert the model again, or restore"):
        verify_files(tmp_path, asked)


def test_a_missing_file_is_named(manifest: ModelManifest, tmp_path: Path) -> None:
    with pytest.raises(ModelCorruptError, match=r"Cannot read .*tokenizer\.json: No such file"):
        verify_files(tmp_path, manifest, ["tokenizer.json"])


def test_models_are_listed_and_other_folders_passed_over(
    tiny_model: Path, tmp_path: Path, manifest: ModelManifest
) -> None:
    for name in ("b", "a", "corrupt", "empty", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("b", "a", ".hidden"):
        (tmp_path / name / "manifest.json").write_text(manifest.to_json())
    (tmp_path / "corrupt" / "manifest.json").write_text("{")
    (tmp_path / "README.md").write_text("")
    assert list(list_models(tmp_path)) == ["a", "b"]


def test_no_models_folder_means_no_models(tmp_path: Path) -> None:
    assert list_models(tmp_path / "nowhere") == {}


# --- identities ---


BUNDLED = Path(__file__).parents[1] / "onnx_models" / "demo"


def test_the_ids_of_the_bundled_model_never_change() -> None:
    """Vectors that people have stored carry them."""
    demo = load_manifest(BUNDLED)
    assert demo.preprocess.id == "637b2cf8e3e922c9"
    assert demo.preprocess.id_with(exif_orientation=False) == "9ca6162d4cbe250d"
    assert demo.embedding_id("fp32", demo.preprocess.id) == "78f2817b48dd8ec8"
    assert demo.embedding_id("bf16", demo.preprocess.id) == "160b0bf07538e734"
    assert demo.embedding_id("fp32", "9ca6162d4cbe250d") == "34c10dc77117008c"


def test_the_ids_of_the_first_bundled_model_are_its_own_for_ever(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((GOLDEN / "manifest_of_the_first_demo.json").read_bytes())
    first = load_manifest(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_bytes())["format"] == 1
    assert first.preprocess.id == "637b2cf8e3e922c9"
    assert first.preprocess.id_with(exif_orientation=False) == "9ca6162d4cbe250d"
    assert first.embedding_id("fp32", first.preprocess.id) == "3d465f3198fcc064"
    assert first.embedding_id("bf16", first.preprocess.id) == "7831ac15d4792f1c"
    assert first.embedding_id("fp32", "9ca6162d4cbe250d") == "a250ae2361913424"


def test_the_ids_of_a_manifest_of_format_1_never_change(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((GOLDEN / "manifest_of_format_1.json").read_bytes())
    old = load_manifest(tmp_path)
    assert (old.family, old.made_from, old.identity) == ("clip", {}, {})
    assert old.preprocess.id == "70885aed0bad45c9"
    ids = [old.embedding_id(precision, old.preprocess.id) for precision in ("fp32", "fp16", "int8")]
    assert ids == ["0327eef459e64a80", "71061adf220ed1d6", "cb03b4a4809fe0ac"]
    (tmp_path / "manifest.json").write_text(old.to_json())  # as format 2
    assert load_manifest(tmp_path) == old


def test_the_embedding_id_changes_with_every_fact_of_the_models_identity(manifest: ModelManifest) -> None:
    identities: list[dict[str, str | int | float]] = [
        {},
        {"vision.activation": "gelu"},
        {"text.activation": "gelu"},
        {"vision.epsilon": 1e-6},
        {"vision.epsilon": 1e-4},
        {"text.end": 7},
        {"tokenizer": "0123456789abcdef"},
    ]
    ids = {replace(manifest, identity=facts).embedding_id("fp32", SPEC.id) for facts in identities}
    assert len(ids) == len(identities)


def test_the_preprocessing_id_changes_with_every_fact() -> None:
    changed = [
        replace(SPEC, shortest_edge=33),
        replace(SPEC, crop_size=31),
        replace(SPEC, image_mean=(0.5, 0.5, 0.5)),
        replace(SPEC, image_std=(0.5, 0.5, 0.5)),
        replace(SPEC, rescale_factor=0.00392156862745098 * 2),
        replace(SPEC, resample="bilinear"),
        replace(SPEC, resize="squash"),
        replace(SPEC, crop_offset="round"),
    ]
    ids = {SPEC.id, SPEC.id_with(fast=True), *(spec.id for spec in changed)}
    assert len(ids) == 2 + len(changed)
    assert SPEC.id_with() == SPEC.id


def test_the_embedding_id_follows_weights_precision_and_preprocessing_and_not_the_conversion(
    manifest: ModelManifest,
) -> None:
    own = manifest.embedding_id("fp32", SPEC.id)
    again = replace(
        manifest, created="later", versions={"torch": "9"}, files={n: FileSpec("1", 1) for n in manifest.files}
    )
    assert again.embedding_id("fp32", SPEC.id) == own
    others = {
        replace(manifest, source={"weights_sha256": "1" * 64}).embedding_id("fp32", SPEC.id),
        manifest.embedding_id("fp16", SPEC.id),
        manifest.embedding_id("fp32", "other"),
    }
    assert own not in others
    assert len(others) == 3


def test_a_quantised_graph_has_its_own_embedding_id(manifest: ModelManifest) -> None:
    """It is calibrated, so two conversions of the same weights may differ."""
    vision = replace(manifest.towers["vision"], variants={"fp32": "vision.fp32.onnx", "int8": "vision.int8.onnx"})

    def with_graph(sha256: str) -> ModelManifest:
        files = {**manifest.files, "vision.int8.onnx": FileSpec(sha256, 1)}
        return replace(manifest, towers={"vision": vision}, files=files)

    assert with_graph("1").embedding_id("int8", SPEC.id) != with_graph("2").embedding_id("int8", SPEC.id)
    assert with_graph("1").embedding_id("fp32", SPEC.id) == with_graph("2").embedding_id("fp32", SPEC.id)


def test_measured_errors_are_read_by_tower_and_precision(manifest: ModelManifest) -> None:
    parity = {"vision": {"fp16": {"relative_error": 0.005}, "int8": {"samples": 12}}}
    measured = replace(manifest, parity=parity)
    assert measured.relative_errors("vision") == {"fp16": 0.005}
    assert measured.relative_errors("text") == {}


def test_an_unreadable_file_is_named(manifest: ModelManifest, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    size = os.stat(tmp_path / "model.onnx").st_size
    with pytest.raises(ModelCorruptError, match=r"Cannot read .*model\.onnx: Is a directory"):
        verify_files(tmp_path, replace(manifest, files={"model.onnx": FileSpec("0" * 64, size)}))
