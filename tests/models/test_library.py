"""Which models are served under which names, and that a folder that came, went or changed is seen."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest

from clipsrv.errors import (
    ConfigError,
    ModelCorruptError,
    ModelNotFoundError,
    ModelNotOfferedError,
    ModelTooLargeError,
)
from clipsrv.models import library as library_file
from clipsrv.models.library import Library, check_memory
from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings, OfferSettings
from conversions.folder import publish
from tests.support.model import write_model

MIB = 2**20


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two models, a and b."""
    for name in "ab":
        write_model(tmp_path / "models" / name, text=False)
    return tmp_path / "models"


def opened(models: Path, *named: str, on_demand: bool = False, aliases: Mapping[str, str] | None = None) -> Library:
    return Library(models, OfferSettings(named, on_demand, aliases or {}), ModelSettings("cpu", threads=1))


# --- names ---


def test_only_models_that_are_named_are_served_or_every_one_on_demand(models: Path) -> None:
    library = opened(models, "b")
    assert (library.default, library.names(), library.resolve("b")) == ("b", ["b"], "b")
    with pytest.raises(ModelNotOfferedError, match="No model 'a' is served here; there are: b"):
        library.resolve("a")
    assert opened(models, "b", on_demand=True).names() == ["b", "demo", "a"]


def test_an_alias_means_its_model(models: Path) -> None:
    library = opened(models, "a", on_demand=True, aliases={"text-embedding-3-small": "b", "openai/clip": "a"})
    assert [library.resolve(name) for name in ("text-embedding-3-small", "openai/clip")] == ["b", "a"]
    assert "text-embedding-3-small" not in library.names()


@pytest.mark.parametrize("name", ["", "../a", "a/", "A", "a" * 5000, "\ud800", "a\n", "*"])
def test_a_name_that_is_none_is_told_in_printable_characters_and_cut(models: Path, name: str) -> None:
    with pytest.raises(ModelNotOfferedError) as caught:
        opened(models, "a", on_demand=True).resolve(name)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_of_many_models_only_some_are_told(tmp_path: Path) -> None:
    write_model(tmp_path / "m0", text=False)
    for number in range(1, 50):
        shutil.copytree(tmp_path / "m0", tmp_path / f"m{number}", copy_function=shutil.copyfile)
    with pytest.raises(ModelNotOfferedError, match=r"m0, demo, m1, .*, \.\.\.\.$"):
        opened(tmp_path, "m0", on_demand=True).resolve("none")


def test_what_is_named_and_not_there_ends_the_start(models: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="python -m conversions vit-b-32"):
        opened(models, "a", "vit-b-32")
    with pytest.raises(ModelNotFoundError, match="'typo'"):
        opened(models, "a", on_demand=True, aliases={"x": "typo"})


def test_an_alias_that_is_a_folder_of_models_served_is_refused(models: Path) -> None:
    with pytest.raises(ConfigError, match="b is a model itself"):
        opened(models, "a", on_demand=True, aliases={"b": "a"})
    assert opened(models, "a", aliases={"b": "a"}).resolve("b") == "a", "b is not served"


# --- folders that change ---


def test_a_model_that_appears_or_vanishes_is_seen_at_the_next_look(models: Path) -> None:
    library = opened(models, "a", on_demand=True)
    write_model(models / "c", text=False)
    shutil.rmtree(models / "b")
    (models / "no model").mkdir()
    with pytest.raises(ModelNotOfferedError):
        library.resolve("c")
    library.refresh()
    assert library.names() == ["a", "demo", "c"]
    assert (library.resolve("c"), library.version("b")) == ("c", None)
    with pytest.raises(ModelNotOfferedError):
        library.resolve("b")
    shutil.rmtree(models)
    library.refresh()
    assert library.names() == ["a", "demo"], "what was named stays, and says why it cannot be loaded"
    with pytest.raises(ModelNotFoundError):
        library.load("a")


@pytest.mark.parametrize("name", ["manifest.json", "vision.fp32.onnx"])
def test_another_file_in_its_place_is_another_version(models: Path, name: str) -> None:
    library = opened(models, "a", "b")
    before = {model: library.version(model) for model in "ab"}
    library.refresh()
    assert {model: library.version(model) for model in "ab"} == before
    copy = models / "a" / "copy"
    shutil.copyfile(models / "a" / name, copy)
    copy.rename(models / "a" / name)
    library.refresh()
    assert library.version("a") != before["a"]
    assert library.version("b") == before["b"]


def test_the_converters_exchange_of_a_folder_is_another_version(models: Path, tmp_path: Path) -> None:
    library = opened(models, "a")
    before = library.version("a")
    publish(write_model(models / ".partial" / "a", text=False, weight=-1.0), models / "a")
    library.refresh()
    assert library.version("a") not in (None, before)


def test_a_file_that_is_written_to_is_told_from_one_that_is_exchanged(models: Path) -> None:
    library = opened(models, "a")
    graph = models / "a" / "vision.fp32.onnx"
    before = library.version("a")
    assert before is not None
    publish(shutil.copytree(models / "a", models / ".partial" / "a"), models / "a")
    library.refresh()
    assert not library.is_written_over("a", before)
    before = library.version("a")
    assert before is not None
    with (models / "a" / "manifest.json").open("a") as manifest:
        manifest.write(" ")
    library.refresh()
    assert library.version("a") != before
    assert not library.is_written_over("a", before), "a manifest is read once"
    with graph.open("ab") as file:
        file.write(b" ")
    library.refresh()
    assert library.is_written_over("a", before)
    shutil.rmtree(models / "a")
    library.refresh()
    assert not library.is_written_over("a", before), "what is deleted is there for who has it open"


def test_a_manifest_is_read_again_only_when_it_has_changed(models: Path) -> None:
    library = opened(models, "a", "b")
    before = library.manifests
    (models / "b" / "manifest.json").write_bytes((models / "b" / "manifest.json").read_bytes() + b"\n")
    library.refresh()
    assert library.manifests["a"] is before["a"]
    assert library.manifests["b"] is not before["b"]


# --- memory ---


def test_models_with_one_tokenizer_share_it_until_the_last_is_closed(tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name)
    library = opened(tmp_path, "a", "b")
    first, second = library.load("a"), library.load("b")
    assert first.tokenizer is second.tokenizer is not None
    held = weakref.ref(first.tokenizer)
    first.close()
    del first
    assert held() is not None
    second.close()
    del second
    assert held() is None


def test_memory_that_is_too_short_is_said_with_both_figures() -> None:
    check_memory("a", 100 * MIB, 100 * MIB)
    check_memory("a", 10**15, None)
    with pytest.raises(ModelTooLargeError, match=r"takes about 1,000 MiB, and 999 MiB are free.*--max-loaded"):
        check_memory("a", 1000 * MIB, 999 * MIB)


def test_only_a_model_beside_another_is_refused_for_want_of_memory(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_file, "free_memory", lambda: MIB)
    library = opened(models, "a", "b")
    library.load("a").close()
    (models / "b" / "vision.fp32.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelTooLargeError):
        library.load("b")
    monkeypatch.setattr(library_file, "free_memory", lambda: 10**12)
    with pytest.raises(ModelCorruptError):
        library.load("b")


def test_what_a_model_takes_counts_weights_beside_the_graph_and_the_towers_that_are_opened(tmp_path: Path) -> None:
    folder, told = write_model(tmp_path / "a"), list[int]()
    for text in (True, False):
        load_model(folder, ModelSettings("cpu", threads=1, text=text), told.append).close()
    graphs = [(folder / f"{tower}.fp32.onnx").stat().st_size for tower in ("vision", "text")]
    assert told[1] == 128 * MIB + int(2.25 * graphs[0])
    assert told[0] == told[1] + int(2.25 * graphs[1])
