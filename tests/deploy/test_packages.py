"""What pip makes of the source: whole packages, the compiled parts wherever Python will look, nothing from before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks.gpu.unpack import extract

ROOT = Path(__file__).parents[2]
#: What building needs of the repository, and what Python or a compiler leaves in it.
SOURCE = (
    "clipsrv",
    "conversions",
    "onnx_models/demo",
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
LEFT = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")


def copy_source(folder: Path) -> Path:
    """The source as a fresh clone has it."""
    for name in SOURCE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=LEFT)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(source: Path, into: Path, hook: str = "build_wheel", **environment: str) -> Path:
    """What one of the hooks that pip calls (PEP 517) makes of a source folder."""
    program = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(into)],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return into / done.stdout.splitlines()[-1]


def names(wheel: Path) -> set[str]:
    """A wheel's files, without its metadata."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


COMPILED = {"clipsrv/_cpu.abi3.so", "clipsrv/images/_resize.abi3.so"}


def compiled(folder: Path) -> set[str]:
    found = (folder / "clipsrv").rglob("_*")
    return {path.relative_to(folder).as_posix() for path in found if path.suffix in {".so", ".pyd"}}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that has been built from before: a module that is gone still lies in build/."""
    folder = copy_source(tmp_path_factory.mktemp("clone"))
    for name in ("lib", "lib.linux-x86_64-cpython-311"):
        (folder / "build" / name / "clipsrv").mkdir(parents=True)
        (folder / "build" / name / "clipsrv/gone.py").touch()
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as pip installs it."""
    folder = tmp_path_factory.mktemp("site-packages")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files_of_packages() -> Iterator[str]:
    for package in ("clipsrv", "conversions"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".c", ".so", ".pyd"}:
                yield path.relative_to(ROOT).as_posix()
    yield from (f"clipsrv/models/demo/{path.name}" for path in (ROOT / "onnx_models/demo").iterdir())


def test_a_wheel_holds_every_file_of_its_packages_and_nothing_of_an_earlier_build(wheel: Path) -> None:
    assert names(wheel) == {*files_of_packages(), *COMPILED}
    assert "-cp311-abi3-" in wheel.name


def test_a_source_distribution_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, tmp_path, "build_sdist")) as archive:
        extract(archive, tmp_path)
    (unpacked,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert names(build(unpacked, tmp_path)) == names(wheel)


def test_building_leaves_the_compiled_parts_beside_the_source_too(source: Path, wheel: Path) -> None:
    assert compiled(source) == COMPILED


def test_without_a_compiler_a_wheel_is_made_and_what_was_compiled_before_is_not_kept(tmp_path: Path) -> None:
    folder = copy_source(tmp_path / "clone")
    for name in COMPILED:
        (folder / name).write_bytes(b"compiled from another source")
    wheel = build(folder, tmp_path, CC="/no/compiler")
    assert names(wheel) == set(files_of_packages())
    assert compiled(folder) == set()


def doctor(folder: Path, path: Path) -> str:
    """What `python -m clipsrv doctor` says, run in `folder` with `path` installed."""
    done = subprocess.run(
        [sys.executable, "-m", "clipsrv", "doctor", "--model", "demo", "--device", "cpu"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_package_serves_its_bundled_model_from_any_folder(installed: Path, tmp_path: Path) -> None:
    said = doctor(tmp_path, installed)
    assert f" of {installed}/clipsrv, Python" in said
    assert "images are resized by C" in said
    assert "would run    demo on cpu" in said


def test_doctor_says_which_clipsrv_runs_and_how_to_get_at_the_compiled_one(installed: Path, tmp_path: Path) -> None:
    clone = copy_source(tmp_path / "clone")
    said = doctor(clone, installed)
    assert f" of {clone}/clipsrv, Python" in said
    assert f"in the place of clipsrv 0.1.0 of {installed}/clipsrv" in said
    assert "images are resized by Pillow" in said
    advice = said.partition("change this")[2]
    assert f"that of {installed}/clipsrv is compiled" in advice
    assert "Run `clipsrv`" in advice
    assert "pip install --editable ." in advice


def test_the_wheel_brings_the_command_clipsrv_whose_help_calls_it_by_that_name(installed: Path, tmp_path: Path) -> None:
    (found,) = installed.glob("clipsrv-*.dist-info/entry_points.txt")
    points = ConfigParser()
    points.read_string(found.read_text(encoding="utf-8"))
    assert dict(points["console_scripts"]) == {"clipsrv": "clipsrv.cli:main"}
    command = tmp_path / "clipsrv"  # as pip writes it
    command.write_text("import sys\nfrom clipsrv.cli import main\nsys.exit(main())\n")
    for started, name in (([str(command)], "clipsrv"), (["-m", "clipsrv"], "python -m clipsrv")):
        for words, usage in (([], "[serve] [options]"), (["doctor"], "doctor [options]"), (["embed"], "embed [-h]")):
            done = subprocess.run(
                [sys.executable, *started, *words, "--help"],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(installed)},
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.startswith(f"usage: {name} {usage}")
