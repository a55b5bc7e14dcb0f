"""A start that cannot succeed: the right exit status, one clear line, no traceback, and quickly."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clipsrv.cli import main
from clipsrv.config import Config
from clipsrv.manifest import load_manifest
from clipsrv.server import lifecycle
from tests.support.model import describe, write_model
from tests.support.server import ServerProcess
from tests.support.wire import request

pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture
def start(models_dir: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """start(*flags): the exit status and the one line that says why."""

    def run(*flags: object, folder: Path = models_dir) -> tuple[int, str]:
        common = ("--models-dir", folder, "--model", "tiny", "--device", "cpu", "--port", 0, "--log-level", "error")
        try:
            status = main(["serve", *map(str, (*common, *flags))])
        except SystemExit as error:  # argparse's own way
            status = int(str(error.code))
        errors = capfd.readouterr().err
        assert "Traceback" not in errors
        lines = [line for line in errors.splitlines() if re.match(r"(python -m )?clipsrv: ", line) or "error:" in line]
        assert len(lines) == 1, errors
        return status, lines[0]

    return run


Start = Callable[..., tuple[int, str]]

BAD_SETTINGS = {
    "an unknown flag": ("--prot", "1"),
    "an abbreviated flag": ("--por", "1"),
    "a port in words": ("--port", "abc"),
    "a port too high": ("--port", "70000"),
    "a limit of nothing": ("--max-images", "0"),
    "a negative limit": ("--max-pixels", "-1"),
    "a time of nothing": ("--deadline", "0"),
    "not a number": ("--deadline", "nan"),
    "an unknown device": ("--device", "tpu"),
    "an unknown log format": ("--log-format", "xml"),
    "a queue smaller than a request": ("--max-queue", "3"),
    "an empty key": ("--api-keys", ""),
    "an empty key among others": ("--api-keys", "abc,,def"),
    "no such key file": ("--api-key-file", "nowhere/keys"),
    "a share smaller than a request": ("--max-queue-per-caller", "3"),
    "an alias that is none": ("--alias", "x"),
    "an alias of what is not served": ("--alias", "x=vit-b-32"),
    "an alias of an alias": ("--alias", "x=tiny", "--alias", "y=x"),
    "an alias of itself": ("--alias", "x=x"),
    "an alias that is a model": ("--alias", "tiny=tiny"),
    "an alias that is two": ("--alias", "x=tiny,x=demo"),
    "an alias that cannot be shown": ("--alias", "\u65e5=tiny"),
    "fewer models than are named": ("--max-loaded", "1", "--models", "demo"),
    "a negative time": ("--unload-after", "-1"),
}

#: Of two settings that contradict each other the line names both, by their variables.
CONTRADICTIONS = {
    "--max-queue": "CLIPSRV_MAX_QUEUE is 3, less than CLIPSRV_MAX_IMAGES 64",
    "--max-queue-per-caller": "CLIPSRV_MAX_QUEUE_PER_CALLER must be at least CLIPSRV_MAX_IMAGES",
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_setting_that_cannot_be_is_status_2_and_named(name: str, start: Start) -> None:
    status, line = start(*BAD_SETTINGS[name])
    flag = BAD_SETTINGS[name][0]
    assert status == 2
    assert CONTRADICTIONS.get(flag, flag) in line


@pytest.mark.parametrize(
    "name",
    [
        "absent",
        "../models/tiny",
        "/etc",
        "tiny/",
        "a/b",
        "..",
        ".",
        "",
        " ",
        "a" * 5000,
        "tiny\x00",
        "t\u0456ny",
        "~",
        "-x",
    ],
)
def test_a_model_that_is_not_a_folder_of_the_models_is_status_3(name: str, start: Start) -> None:
    status, line = start(f"--model={name}")
    assert status == 3
    assert len(line) < 600


def test_one_of_several_models_that_is_not_there_is_status_3(start: Start) -> None:
    status, line = start("--models", "demo,absent")
    assert status == 3
    assert "absent" in line


def test_an_alias_that_is_a_folder_too_is_status_2(start: Start) -> None:
    status, line = start("--on-demand", "--alias", "demo=tiny")
    assert (status, "demo is a model itself" in line) == (2, True)


def test_one_of_several_models_that_is_damaged_is_status_3_and_named(start: Start, tmp_path: Path) -> None:
    for name in ("tiny", "other"):
        write_model(tmp_path / name, text=False)
    (tmp_path / "other" / "vision.fp32.onnx").write_bytes(b"")
    status, line = start("--models", "other", folder=tmp_path)
    assert status == 3
    assert "other" in line


def test_a_known_model_that_is_missing_comes_with_the_command_that_makes_it(start: Start) -> None:
    status, line = start("--model", "vit-b-32")
    assert status == 3
    assert "python -m conversions vit-b-32" in line


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def with_replaced(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text())
    assert count, "nothing was damaged"
    path.write_text(changed)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "one bit": ("vision.fp32.onnx", flipped),
    "one bit of the tokenizer": ("tokenizer.json", flipped),
    "emptied": ("vision.fp32.onnx", lambda path: path.write_bytes(b"")),
    "cut": ("vision.fp32.onnx", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "missing": ("vision.fp32.onnx", Path.unlink),
    "a folder": ("vision.fp32.onnx", replaced_by_a_folder),
    "a web page": ("vision.fp32.onnx", lambda path: path.write_text("<!DOCTYPE html><p>404")),
    "a pointer": ("vision.fp32.onnx", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1")),
    "manifest missing": ("manifest.json", Path.unlink),
    "manifest cut": ("manifest.json", lambda path: path.write_bytes(path.read_bytes()[:100])),
    "manifest of another version": (
        "manifest.json",
        lambda path: with_replaced(path, '"format": [0-9]+', '"format": 99'),
    ),
    "manifest with NaN": (
        "manifest.json",
        lambda path: with_replaced(path, '"crop_size": 32', '"crop_size": NaN'),
    ),
    "manifest that is a named pipe": ("manifest.json", replaced_by_a_pipe),
    "manifest leading outside": (
        "manifest.json",
        lambda path: with_replaced(path, "vision.fp32.onnx", "../../etc/passwd"),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_is_status_3_and_the_file_is_named(
    name: str, start: Start, models_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models_dir, folder)
    file, damage = DAMAGE[name]
    damage(folder / "tiny" / file)
    status, line = start(folder=folder)
    assert status == 3
    assert file in line


def test_a_graph_of_another_tower_is_status_3(start: Start, models_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models_dir, tmp_path / "models") / "tiny"
    graph = Path(shutil.copy(folder / "text.fp32.onnx", folder / "vision.fp32.onnx"))
    manifest = load_manifest(folder)
    changed = replace(manifest, files={**manifest.files, graph.name: describe(graph)})
    (folder / "manifest.json").write_text(changed.to_json(), encoding="utf-8")
    status, line = start(folder=tmp_path / "models")
    assert status == 3
    assert "The graph takes ['input_ids'] and gives ['text_embeds']" in line


def test_a_port_in_use_is_status_4_before_the_model_is_opened(start: Start, models_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models_dir, folder)
    (folder / "tiny" / "vision.fp32.onnx").write_bytes(b"")  # opening it would be status 3
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, line = start("--port", port, folder=folder)
    assert status == 4
    assert str(port) in line


@pytest.mark.parametrize(
    "host",
    [
        "256.256.256.256",
        "203.0.113.1",
        "nonsense.invalid",
        "::g",
        "a..b",
        ".",
        "x" * 70,
        "[::g]",
        "[",
        "[]",
        "a b",
    ],
)
def test_an_address_that_is_not_ours_is_status_4(host: str, start: Start) -> None:
    status, line = start("--host", host)
    assert status == 4
    assert host in line


def test_an_address_of_version_6_is_taken_with_its_brackets_or_without(
    run_server: Callable[..., ServerProcess],
) -> None:
    for host in ("[::1]", "::1"):
        server = run_server("--host", host).ready()
        assert server.url.startswith("http://[::1]:")
        assert server.ask(request("GET", "/health", None, f"Host: [::1]:{server.address[1]}")).status == 200
        assert "without API keys" not in server.log


def test_a_device_that_is_not_there_is_status_5(start: Start) -> None:
    status, line = start("--device", "cuda")
    assert status == 5
    assert "cuda" in line


def test_misspelt_variables_are_warned_about(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], models_dir: Path
) -> None:
    monkeypatch.setenv("CLIPSRV_PROT", "1")
    assert main(["--models-dir", str(models_dir), "--model", "absent"]) == 3
    for handler in logging.getLogger().handlers:
        handler.close()
    assert "CLIPSRV_PROT" in capfd.readouterr().err


def test_a_missing_compiled_resize_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [text for text in lifecycle.warnings(Config(), []) if "Pillow" in text]
    monkeypatch.setattr(lifecycle, "COMPILED", False)
    (warning,) = [text for text in lifecycle.warnings(Config(), []) if "Pillow" in text]
    assert "install a C compiler" in warning


def test_an_empty_key_variable_is_refused_and_not_taken_for_none(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setenv("CLIPSRV_API_KEYS", "")
    status, line = start()
    assert status == 2
    assert "CLIPSRV_API_KEYS" in line


def test_the_line_of_readiness_says_how_many_threads_and_why_and_which_languages_the_model_knows(
    models_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models_dir / "tiny", tmp_path / "tiny")
    manifest = load_manifest(folder)
    manifest = replace(manifest, source={**manifest.source, "languages": "en ja"})
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    server = ServerProcess("--model", "tiny", "--models-dir", tmp_path, "--device", "cpu", "--port", 0, "--threads", 3)
    try:
        line = server.wait_for("ready: model tiny")
        assert "threads 3 (as set), " in line
        assert "text on (knows English and Japanese)" in line
    finally:
        server.close()
