"""Arguments to Config to run: flags win over variables over defaults, and what cannot start says so in one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from clipsrv.cli import COMMANDS, main, read_config, serve_parser
from clipsrv.config import Config, flag, variable
from clipsrv.search.run import MOST
from clipsrv.server.listening import who_holds

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CLIPSRV_")]:
        monkeypatch.delenv(name)


def test_help_lists_every_flag_with_its_default_and_variable() -> None:
    text = " ".join(serve_parser().format_help().split())
    for item in fields(Config):
        assert f"{flag(item.name)} " in text or f"{flag(item.name)}," in text
        assert f"(default: {str(item.default).lower()}) [{variable(item.name)}]" in text
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize(
    ("command", "usage", "about"),
    [
        ("serve", "[serve] [options]", "Serves CLIP embeddings"),
        ("doctor", "doctor [options]", "Says what this machine has"),
        ("embed", "embed [-h]", "Embeds image files without a server"),
        ("classify", "classify [-h]", "which of some labels each image file is"),
        ("search", "search [-h]", "Finds the images of an index"),
    ],
)
def test_every_command_has_help_of_its_own(
    command: str, usage: str, about: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m clipsrv {usage}")
    assert about in said
    assert ("commands:" in said) == (command == "serve")


def test_flags_win_over_variables_and_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_config([]) == Config()
    monkeypatch.setenv("CLIPSRV_PORT", "6000")
    monkeypatch.setenv("CLIPSRV_TEXT", "no")
    assert read_config([]) == Config(port=6000, text=False)
    assert read_config(["--port", "7000", "--text"]) == Config(port=7000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "CLIPSRV_PORT (--port) is 70000; it must be from 0 to 65,535"),
        (["--port", "http"], "CLIPSRV_PORT (--port) is 'http'; it must be a whole number"),
        (["--device", "gpu"], "CLIPSRV_DEVICE (--device) is 'gpu'; it must be one of auto, cpu, cuda"),
        (["serve", "--max-images", "300"], "CLIPSRV_MAX_QUEUE is 256, less than CLIPSRV_MAX_IMAGES 300"),
    ],
)
def test_a_wrong_setting_ends_with_2_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"clipsrv: {said}")
    assert error.count("\n") == 1


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CLIPSRV_DEADLINE", "soon")
    assert main([]) == 2
    assert "CLIPSRV_DEADLINE (--deadline) is 'soon'; it must be a number" in capsys.readouterr().err


def test_the_embed_command_does_not_mind_variables_that_are_only_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPSRV_PORT", "nonsense")
    assert main(["embed", "--out", str(tmp_path / "a.npy"), "b.png"]) == 2
    assert "There is no file or folder 'b.png'" in capsys.readouterr().err
    monkeypatch.setenv("CLIPSRV_MODEL", "\udcff")
    assert main(["embed", "--out", "a.npy", "b.png"]) == 2
    assert "CLIPSRV_MODEL (--model) is not valid UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--patience=nan", "--patience=-1", "--shard-size=0"])
def test_an_option_of_the_embed_command_out_of_range_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "--out", "a.npy", "b.png", option]) == 2
    assert "--shard-size must be 1 or more, --patience and --image-seconds 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prot", "1"], ": unrecognized arguments: --prot 1"),
        (["--por", "1"], ": unrecognized arguments: --por 1"),
        (["doctor", "--bogus"], ": unrecognized arguments: --bogus"),
        (["embed", "a", "--out", "b.npy", "--bogus"], " embed: unrecognized arguments: --bogus"),
        (["embed", "a"], " embed: the following arguments are required: --out"),
        (
            ["embed", "a", "--out", "b.npy", "--shard-size", "x"],
            " embed: argument --shard-size: invalid int value: 'x'",
        ),
        (["classify", "a"], " classify: the following arguments are required: --out"),
        (["search"], " search: the following arguments are required: INDEX"),
    ],
)
def test_an_unknown_or_missing_argument_is_one_line_that_leads_to_help_and_is_never_guessed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    prog = f"python -m clipsrv{' ' + arguments[0] if said.startswith(' ') else ''}"
    assert capsys.readouterr().err == f"python -m clipsrv{said} (see {prog} --help)\n"


def test_images_that_were_taken_for_labels_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["classify", "--labels", "heart", "star", "examples/", "last", "--out", "x.csv"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "no images are named; what follows --labels is a label, 'examples/' too: put images before it" in error
    assert error.count("\n") == 1


def test_the_help_of_search_says_which_model_it_takes_and_how_many_images_may_be_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "model that made the index (default: found by the index) [CLIPSRV_MODEL]" in said
    assert f"images found at most, 1 to {MOST:,} (default: 10)" in said
    assert "model to serve" not in said


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: Sequence[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "serve", (interrupt, "interrupts"))
    assert main(["serve"]) == 130


# --- what cannot start, as a person sees it ---


def test_a_variable_that_is_not_utf_8_is_one_line_and_no_traceback() -> None:
    environment = {**os.environb, b"CLIPSRV_HOST": b"\xff", b"CLIPSRV_M\xff": b"1"}
    command = [sys.executable, "-m", "clipsrv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    assert (done.returncode, done.stderr) == (2, "clipsrv: CLIPSRV_HOST (--host) is not valid UTF-8.\n")


def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clipsrv", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ, **env})


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


DOCTOR = [sys.executable, "-m", "clipsrv", "doctor", "--model", "none"]


def test_doctor_ends_quietly_when_its_reader_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(DOCTOR, stdout=writer, stderr=subprocess.PIPE, timeout=60, cwd=ROOT, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_doctor_may_be_started_without_anywhere_to_print() -> None:
    command = ["bash", "-c", 'exec "$@" >&-', "bash", *DOCTOR]
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_missing_model_names_the_command_that_makes_it(models_dir: Path) -> None:
    done = run("--models-dir", models_dir, "--port", 0)
    assert done.returncode == 3
    assert done.stderr == (
        f"clipsrv: No model 'vit-b-32' in {models_dir} (there: tiny). Make it with: python -m conversions vit-b-32\n"
    )


def test_a_corrupt_model_names_the_file(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    blob = bytearray((folder / "vision.fp32.onnx").read_bytes())
    blob[-1] ^= 1
    (folder / "vision.fp32.onnx").write_bytes(blob)
    done = run("--model", "tiny", "--models-dir", tmp_path, "--port", 0)
    assert done.returncode == 3
    assert "vision.fp32.onnx differs from its manifest" in last_line(done)


def test_a_port_in_use_names_the_way_out(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--model", "tiny", "--models-dir", models_dir, "--port", port)
    assert done.returncode == 4
    assert f"Cannot listen on 127.0.0.1:{port}: " in last_line(done)
    assert "Choose another with --port" in last_line(done)


def test_a_device_that_is_not_there_ends_the_start(models_dir: Path) -> None:
    done = run("--model", "tiny", "--models-dir", models_dir, "--port", 0, "--device", "cuda")
    assert done.returncode == 5
    assert last_line(done).startswith("clipsrv: --device cuda is not possible: this onnxruntime")
    assert "ready" not in done.stderr


def test_without_onnxruntime_the_extras_are_named() -> None:
    program = "import sys; sys.modules['onnxruntime'] = None; from clipsrv.cli import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 5
    assert done.stderr.startswith("clipsrv: onnxruntime is not installed. Run one of: ")
    ways = re.findall(r"pip install --editable '\.\[(\w+)\]'[;\n]", done.stderr)
    assert ways == ["cpu", "gpu", "openvino"]


def test_another_missing_module_is_a_bug_and_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: Sequence[str]) -> int:
        raise ModuleNotFoundError("no", name="aiohttp")

    monkeypatch.setitem(COMMANDS, "serve", (broken, "breaks"))
    with pytest.raises(ModuleNotFoundError):
        main(["serve"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("serch", "no command 'serch': did you mean search?"),
        ("photos", "there are serve, doctor, embed"),
        ("é\n", "\\n"),
    ],
)
def test_a_command_that_is_not_there_is_answered_with_those_that_are(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "--help"]) == 2
    assert said in capsys.readouterr().err


def test_where_it_does_not_run_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["--version"]) == 1
    assert capsys.readouterr().err == "clipsrv runs on Linux and macOS; on Windows run it in WSL 2 or in Docker.\n"


def test_who_holds_the_port_is_told_by_a_command_of_the_system() -> None:
    assert who_holds(5000, "linux") == "ss -ltnp 'sport = :5000'"
    assert "AirPlay" in who_holds(5000, "darwin")
    assert who_holds(5001, "darwin") == "lsof -nP -iTCP:5001"
