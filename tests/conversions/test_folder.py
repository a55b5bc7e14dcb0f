"""Locking, publishing and recovering, with real processes that are really killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conversions import folder
from conversions.errors import ConversionError
from conversions.folder import locked, partial_folder, publish, recover, require_space

ROOT = Path(__file__).parents[2]


def silent(stage: str) -> None:
    """Nobody listens to the progress here."""


#: Publishes models for ever: two files that must always carry the same number. Killed at any moment.
PUBLISHER = """
import itertools, sys
from pathlib import Path
from conversions import folder
if sys.argv[2] == "aside":
    folder._exchange = lambda one, other: False
models = Path(sys.argv[1])
for number in itertools.count():
    with folder.locked(models, 10, print), folder.partial_folder(models, "m") as partial:
        (partial / "a").write_text(str(number))
        (partial / "b").write_text(str(number))
        folder.publish(partial, models / "m")
    print(number, flush=True)
"""


@pytest.fixture(params=["exchange", "aside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of replacing a folder: the kernel's exchange of names, and two renames with recovery."""
    if request.param == "aside":
        monkeypatch.setattr(folder, "_exchange", lambda one, other: False)
    return str(request.param)


def fill(path: Path, content: str) -> None:
    (path / "graph").write_text(content)


def names(models: Path) -> set[str]:
    return {path.name for path in models.iterdir()} - {folder.LOCK_NAME}


def test_publishing_creates_and_replaces_and_leaves_nothing_behind(tmp_path: Path, way: str) -> None:
    for content in ("old", "new"):
        with locked(tmp_path, 1, silent), partial_folder(tmp_path, "m") as partial:
            fill(partial, content)
            publish(partial, tmp_path / "m")
        assert (tmp_path / "m" / "graph").read_text() == content
        assert names(tmp_path) == {"m"}


def test_work_that_fails_leaves_the_old_folder_and_no_partial_one(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    fill(tmp_path / "m", "old")

    def fail() -> None:
        with partial_folder(tmp_path, "m") as partial:
            fill(partial, "new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "m" / "graph").read_text() == "old"
    assert names(tmp_path) == {"m"}


def test_a_folder_moved_aside_by_a_dead_converter_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".m.replaced-99999"
    aside.mkdir()
    fill(aside, "old")
    (tmp_path / ".m.partial-99999").mkdir()
    with locked(tmp_path, 1, silent):
        assert names(tmp_path) == {"m"}
    assert (tmp_path / "m" / "graph").read_text() == "old"


def test_a_folder_moved_aside_is_deleted_once_the_new_one_is_in_place(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / ".m.replaced-99999").mkdir()
    recover(tmp_path)
    assert names(tmp_path) == {"m"}


@pytest.mark.parametrize("way_name", ["exchange", "aside"])
def test_a_publisher_killed_at_random_moments_never_leaves_a_half_model(tmp_path: Path, way_name: str) -> None:
    dice = random.Random(way_name)
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, tmp_path, way_name], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(dice.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if way_name == "exchange":
            assert (tmp_path / "m").is_dir()  # not missing for a moment
        with locked(tmp_path, 1, silent):
            assert names(tmp_path) == {"m"}
        assert (tmp_path / "m" / "a").read_text() == (tmp_path / "m" / "b").read_text() != ""


def test_a_second_converter_waits_says_so_and_gives_up_in_time(tmp_path: Path) -> None:
    heard: list[str] = []
    with locked(tmp_path, 1, silent):
        began = time.monotonic()
        with pytest.raises(ConversionError, match="Another conversion"), locked(tmp_path, 0.5, heard.append):
            pass
        assert 0.5 <= time.monotonic() - began < 5
    assert len(heard) == 1
    assert "waiting" in heard[0]


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from conversions.folder import locked\n"
    code += "with locked(Path(sys.argv[1]), 1, print): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ConversionError), locked(tmp_path, 0, silent):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(tmp_path, 5, silent):
        pass


def test_the_lock_and_partial_folders_are_not_taken_for_models(tmp_path: Path) -> None:
    from clipsrv.manifest import NAME

    with locked(tmp_path, 1, silent), partial_folder(tmp_path, "m"):
        assert not [path.name for path in tmp_path.iterdir() if NAME.fullmatch(path.name)]


def test_a_models_folder_that_cannot_be_made_is_a_conversion_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConversionError, match="Cannot write to"), locked(tmp_path / "file" / "x", 1, silent):
        pass


def test_too_little_space_is_told_in_figures(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(ConversionError, match=r"about 1000000000\.00 GB are needed"):
        require_space(tmp_path, 10**18)
