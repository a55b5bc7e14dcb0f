"""Fixtures of searching: images of a folder, and what embed makes of them in each form that is a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipsrv.cli import main
from tests.support.photos import cuttings

FORMS = ("npy", "jsonl", "parquet", "lance")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 images, and a copy of the fifth."""
    folder = tmp_path_factory.mktemp("photos")
    blobs = cuttings(12)
    for number, blob in enumerate(blobs):
        (folder / f"{number:02d}.jpg").write_bytes(blob)
    (folder / "copy.jpg").write_bytes(blobs[4])
    return folder


@pytest.fixture(scope="session")
def made(photos: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of `photos` in each of FORMS, made by the small model. Tests do not write to it."""
    folder = tmp_path_factory.mktemp("made")
    common = ("--model", "tiny", "--models-dir", str(models_dir), "--device", "cpu", "--threads", "1", "--quiet")
    for form in FORMS:
        assert main(["embed", str(photos), *common, "--out", str(folder / f"x.{form}")]) == 0
    return folder


@pytest.fixture
def indexes(made: Path, tmp_path: Path) -> Path:
    """A copy of `made`, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "indexes"))


#: Runs `search` with the small model's folder; status, stdout and stderr.
Search = Callable[..., tuple[int, str, str]]


@pytest.fixture
def search(models_dir: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.delenv("CLIPSRV_MODEL", raising=False)

    def run(*args: object) -> tuple[int, str, str]:
        common = ("--models-dir", models_dir, "--threads", 1)
        capfdbinary.readouterr()
        status = main(["search", *map(str, (*common, *args))])
        out, said = capfdbinary.readouterr()
        return status, out.decode(), said.decode()

    return run
