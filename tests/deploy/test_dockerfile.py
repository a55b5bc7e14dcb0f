"""The Dockerfile copies what is there and all that is needed; what it makes is tried by scripts/try-containers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()
INSTRUCTIONS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage, in the file's order; the last one, which is made without --target, is ""."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in INSTRUCTIONS:
        if word == "FROM":
            stage = found.setdefault(rest.partition(" AS ")[2], [])
        stage.append((word, rest))
    return found


def copied(stage: str) -> Iterator[str]:
    """What a stage copies out of the repository."""
    for word, rest in stages()[stage]:
        if word == "COPY" and not rest.startswith("--from="):
            yield from rest.replace("${MODEL}", "demo").split()[:-1]


@pytest.mark.parametrize("stage", stages())
def test_what_is_copied_exists_and_reaches_the_builder(stage: str) -> None:
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    for name in copied(stage):
        assert (ROOT / name).exists()
        assert any(Path(name).match(pattern) or name.startswith(f"{pattern}/") for pattern in let_through), name


def test_the_converters_image_gets_every_package() -> None:
    """It is made of the stage `compile`, whose files are still there when pip installs."""
    there = {*copied("compile"), *copied("install-convert")}
    (packages,) = re.findall(r"find_packages\(include=\[(.+?)\]\)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    roots = set(re.findall(r'"(\w+)"', packages))
    assert {"clipsrv", "conversions"} <= roots
    assert roots <= there
    assert {"onnx_models/demo", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= there


def test_a_builder_that_makes_every_stage_in_turn_makes_nothing_heavy_for_the_cpu_image() -> None:
    needed = list(stages())[: list(stages()).index("cpu") + 1]
    assert not [stage for stage in needed if "gpu" in stage or "convert" in stage]
    assert stages()[""] == [("FROM", "cpu")]


def test_every_stage_begins_from_the_python_that_requirements_are_pinned_for() -> None:
    (pinned,) = re.findall(r"--python-version (\S+)", (ROOT / "scripts/lock").read_text(encoding="utf-8"))
    origins = {rest.partition(" AS ")[0] for word, rest in INSTRUCTIONS if word == "FROM"} - set(stages())
    assert {origin.partition("-")[0] for origin in origins} == {f"python:{pinned}"}


def kept(folder: Path, precision: str, *files: str) -> set[str] | None:
    """What the stage `model` leaves of the files of a model folder; None if it fails."""
    (command,) = [rest for word, rest in stages()["model"] if word == "RUN"]
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    done = subprocess.run(
        ["sh", "-c", command.replace("/model", str(folder))], env={"PRECISION": precision}, check=False
    )
    return {path.name for path in folder.iterdir()} if done.returncode == 0 else None


def test_an_image_has_of_its_model_the_precision_that_was_named(tmp_path: Path) -> None:
    beside = {"manifest.json", "tokenizer.json"}
    fp32 = {"vision.fp32.onnx", "vision.fp32.onnx.data", "text.fp32.onnx", "text.fp32.onnx.data"}
    int8 = {"vision.int8.onnx", "vision.int8.onnx.data", "text.int8.onnx", "text.int8.onnx.data"}
    other = {"vision.int8-openvino.onnx", "vision.int8-openvino.onnx.data"}
    whole = beside | fp32 | int8 | other
    assert kept(tmp_path / "all", "", *whole) == whole
    assert kept(tmp_path / "int8", "int8", *whole) == beside | int8
    assert kept(tmp_path / "fp32", "fp32", *whole) == beside | fp32
    exact = whole - {"text.int8.onnx", "text.int8.onnx.data"}
    assert kept(tmp_path / "exact", "int8", *exact) == (beside | int8 | fp32) & exact - {
        "vision.fp32.onnx",
        "vision.fp32.onnx.data",
    }
    assert kept(tmp_path / "none", "fp16", *whole) is None


def test_programs_are_started_without_a_shell_so_that_signals_reach_them() -> None:
    for word, rest in INSTRUCTIONS:
        if word == "ENTRYPOINT":
            assert json.loads(rest)[0] == "python"
