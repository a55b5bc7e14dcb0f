"""doctor promises what the server would do, and names one thing to change."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from clipsrv import doctor
from clipsrv.config import Config
from clipsrv.manifest import load_manifest
from clipsrv.processor import Processor
from clipsrv.specs import FileSpec
from tests.support.index import write_index
from tests.support.model import make_model
from tests.support.photos import drawn


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MEASURE", 0.05)


def test_a_sound_set_up_is_reported_with_what_would_run(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(config()) == 0
    said = capsys.readouterr().out
    assert "tiny: 64 dimensions, fp32, text; checksums right" in said
    assert "tiny on cpu, fp32" in said
    assert said.count("images/s (model alone, no decoding)") == 2


def test_of_several_workers_it_says_what_one_has(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(config(workers=64)) == 0
    printed = capsys.readouterr().out
    assert " 1 threads (" in printed
    assert "in each of 64 workers" in printed


@pytest.fixture
def with_other_weights(models_dir: Path, tmp_path: Path) -> Path:
    """A folder of models in which tiny has an fp16 variant: the same graph, its weights moved by a little."""
    shutil.copytree(models_dir / "tiny", tmp_path / "tiny")
    folder = tmp_path / "tiny"
    graph = onnx.load(folder / "vision.fp32.onnx")
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
    onnx.save(graph, folder / "vision.fp16.onnx")
    manifest = load_manifest(folder)
    vision = manifest.towers["vision"]
    file = (folder / "vision.fp16.onnx").read_bytes()
    changed = replace(
        manifest,
        towers={**manifest.towers, "vision": replace(vision, variants={**vision.variants, "fp16": "vision.fp16.onnx"})},
        files={**manifest.files, "vision.fp16.onnx": FileSpec(hashlib.sha256(file).hexdigest(), len(file))},
    )
    (folder / "manifest.json").write_text(changed.to_json())
    return tmp_path


def test_what_a_precision_costs_is_measured_on_this_machine(
    config: Callable[..., Config], with_other_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(config(models_dir=str(with_other_weights), precision="fp16")) == 0
    said = capsys.readouterr().out
    assert "tiny on cpu, fp16" in said
    found = re.search(r"vectors differ from those of fp32 by ([\d.]+)% .* at worst by ([\d.]+)%", said)
    assert found is not None
    mean, worst = map(float, found.groups())
    assert 0 < mean <= worst < 5


def test_a_damaged_model_is_named_and_ends_with_status_1(
    config: Callable[..., Config], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_model, tmp_path / "tiny")
    graph = tmp_path / "tiny" / "vision.fp32.onnx"
    graph.write_bytes(bytes([graph.read_bytes()[0] ^ 1]) + graph.read_bytes()[1:])
    assert doctor.run(config(models_dir=str(tmp_path))) == 1
    said = capsys.readouterr().out
    assert said.count("differs from its manifest") == 2
    assert "see the reason above" in said


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        ({"models": "demo", "alias": "one=demo"}, None),
        ({"models": "nothing"}, "No model 'nothing'"),
        ({"alias": "one=nothing", "on_demand": True}, "No model 'nothing'"),
        ({"alias": "nothing"}, "NAME=MODEL"),
        ({"models": "demo", "max_loaded": 1}, "less than the 2 models"),
    ],
)
def test_what_is_served_beside_the_model_must_be_there_too(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str], offer: dict[str, Any], said: str | None
) -> None:
    assert doctor.run(config(**offer)) == (1 if said else 0)
    report = capsys.readouterr().out
    assert "demo: 192 dimensions, fp32, text; checksums right" in report
    assert (said or "beside it demo") in report


def test_a_model_that_is_not_there_is_answered_with_the_command_that_makes_it(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(config(model="vit-b-32")) == 1
    assert "python -m conversions vit-b-32" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_refused_as_the_server_does(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(config(device="cuda")) == 1
    said = capsys.readouterr().out
    assert "nothing: --device cuda" in said
    assert re.search(r"uninstall onnxruntime, then \S.*pip install --editable '\.\[gpu\]'", said)


def test_a_port_in_use_is_the_thing_to_change(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert doctor.run(config(port=port)) == 0
    said = capsys.readouterr().out
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert f"--port {port + 1}" in said


def test_two_runtimes_at_once_come_before_all_other_advice(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "1.32.0")
    assert doctor.run(config()) == 0
    said = capsys.readouterr().out
    assert "MORE THAN ONE is installed" in said
    assert "pip uninstall onnxruntime onnxruntime-gpu" in said


def test_without_the_compiled_resize_a_compiler_is_the_thing_to_install(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "COMPILED", False)
    assert doctor.run(config()) == 0
    said = capsys.readouterr().out
    assert "resized by Pillow" in said
    assert "install a C compiler" in said


def test_features_that_cannot_be_told_are_not_called_missing(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "this_processor", lambda: Processor("some CPU", True, None))
    assert doctor.run(config()) == 0
    said = capsys.readouterr().out
    assert "some CPU: " in said
    assert "features that matter here: cannot tell: /proc/cpuinfo cannot be read" in said


@pytest.mark.parametrize(
    ("gigabytes", "japanese", "quality"),
    [(64, "waon-siglip2-b-16-256", "siglip2-b-16-256"), (4, "none that this machine", "none that this machine")],
)
def test_for_each_need_a_model_is_named_that_this_machine_can_convert_and_serve(
    config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gigabytes: int,
    japanese: str,
    quality: str,
) -> None:
    monkeypatch.setattr(doctor, "physical_memory", lambda: gigabytes << 30)
    monkeypatch.setattr(doctor, "memory_limit", lambda: None)
    assert doctor.run(config()) == 0
    said = capsys.readouterr().out
    assert f"Japanese: {japanese}" in said
    assert "fashion: " in said
    assert "speed: laion-b-32 (finds more than vit-b-32 at its speed; knows English)" in said
    assert f"quality: {quality}" in said


def test_the_memory_limit_of_a_container_counts_as_its_memory(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "physical_memory", lambda: 64 << 30)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 4 << 30)
    assert doctor.run(config()) == 0
    assert "Japanese: none that this machine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoken", "known", "told"),
    [
        ("ja_JP.UTF-8", "en", True),
        ("ja_JP.UTF-8", "en ja", False),
        ("ja", "many", False),
        ("de_DE@euro", "en", True),
        ("en_GB.UTF-8", "en", False),
        ("C.UTF-8", "en", False),
        ("POSIX", "en", False),
        ("", "en", False),
    ],
)
def test_a_model_that_does_not_know_the_language_of_the_machine_is_the_thing_to_change(
    config: Callable[..., Config],
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoken: str,
    known: str,
    told: bool,
) -> None:
    folder = shutil.copytree(models_dir / "tiny", tmp_path / "tiny")
    manifest = load_manifest(folder)
    manifest = replace(manifest, source={**manifest.source, "languages": known})
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", spoken)
    monkeypatch.setattr(doctor, "_MEASURE", 0.0)
    assert doctor.run(config(models_dir=str(tmp_path))) == 0
    assert ("change this  the model, if texts are in the language" in capsys.readouterr().out) == told


def test_the_index_that_would_be_served_is_opened_and_its_model_named(
    config: Callable[..., Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    index = write_index(tmp_path / "x.npy", make_model(), {"a.png": drawn(1)})
    assert doctor.run(config(index=str(index))) == 0
    assert f"1 vectors of {index}, searched by tiny" in capsys.readouterr().out
    assert doctor.run(config(model="demo", models_dir="onnx_models", index=str(index))) == 1
    assert "Served is demo, which makes others" in capsys.readouterr().out
    assert doctor.run(config(index=str(tmp_path / "nothing.npy"))) == 1
    assert "nothing: There is no" in capsys.readouterr().out
