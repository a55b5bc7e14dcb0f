"""The command line as users meet it: what it prints, and the status it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipsrv.providers.table import PROVIDERS
from conversions.cli import PRECISIONS, _parser
from tests.conversions.conftest import ROOT, Run, environment

WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["optimum"] = None
sys.argv[0] = "conversions"
runpy.run_module("conversions", run_name="__main__")
"""


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The line that names the failure; only the stages stand beside it."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_precision_is_converted_for_every_provider_that_computes_it() -> None:
    opened = {(name, one.graph) for row in PROVIDERS for name, one in row.precisions.items() if name != "bf16"}
    assert {(name, variant) for name, variants in PRECISIONS.items() for variant in variants} == opened


def test_help_names_every_flag_and_every_exit_status(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for action in _parser()._actions:
        assert all(flag in done.stdout for flag in action.option_strings)
        assert action.help
    for status in ("0 done", "2 usage", "3 checkpoint", "6 disk", "7 the Hugging", "130"):
        assert status in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["vit-b-99"], 2, "Known: vit-b-32, vit-b-16, vit-l-14, vit-l-14-336"),
        (["--checkpoint", ".", "--name", "../etc"], 2, "cannot be a model's name"),
        (["--checkpoint", "./nowhere", "--name", "x"], 3, "No checkpoint folder"),
        (["--checkpoint", "./scripts", "--name", "x"], 3, "has no config.json"),
        (["--verify", "nowhere"], 3, "No model in nowhere"),
        (["vit-b-32"], 7, "does not answer"),
        (["vit-b-32", "--offline"], 7, "--offline"),
        (["--checkpoint", "someone/some-clip", "--name", "x", "--offline"], 7, "someone/some-clip"),
    ],
)
def test_each_failure_is_one_line_with_its_status(
    run: Run, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    done = run(*arguments, CLIPSRV_MODELS_DIR=str(tmp_path / "models"))
    assert done.returncode == status
    assert words in one_line(done)
    assert not [path for path in (tmp_path / "models").glob("*") if path.name != ".lock"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--precision", "fp8"], ["--no-such-flag"], ["--checkpoint", "."], ["vit-b-32", "--languages", "English"]],
)
def test_wrong_usage_ends_with_status_2_and_the_usage(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m conversions")


def test_without_its_extra_it_names_the_command_that_installs_it(tmp_path: Path) -> None:
    arguments = ["vit-b-32", "--models-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert one_line(done).startswith("error: Converting needs torch, optimum: ")
    assert one_line(done).endswith("pip install --editable '.[convert]'")


def test_a_models_folder_that_cannot_be_written_ends_with_status_6(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("vit-b-32", "--models-dir", tmp_path / "file")
    assert done.returncode == 6
    assert "Cannot write to" in one_line(done)


def test_the_list_shows_known_names_converted_models_and_broken_folders(run: Run, converted_model: Path) -> None:
    (converted_model.parent / "broken").mkdir(exist_ok=True)
    done = run("--list", "--models-dir", converted_model.parent)
    assert done.returncode == 0
    assert "openai/clip-vit-large-patch14-336 at ce19dc912ca5" in done.stdout
    assert "llm-jp/waon-siglip2-base-patch16-256 at main: a hundred languages; Japanese first" in done.stdout
    assert "32 dimensions, with text, fp16, fp32" in done.stdout
    assert "broken                 not a usable model folder" in done.stdout


def test_the_list_of_an_empty_place_says_so(run: Run, tmp_path: Path) -> None:
    done = run("--list", "--models-dir", tmp_path / "nowhere")
    assert done.returncode == 0
    assert "nothing yet" in done.stdout
    assert not (tmp_path / "nowhere").exists()


def test_another_architecture_is_refused_by_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    done = run("--checkpoint", tmp_path, "--name", "x", "--models-dir", tmp_path / "models")
    assert done.returncode == 3
    assert "NaFlex" in one_line(done)
    assert not (tmp_path / "models" / "x").exists()
