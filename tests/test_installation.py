"""What clipsrv says of how to install what it lacks works in a clone and beside a wheel."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import clipsrv
from clipsrv.installation import how_to_install

ROOT = Path(__file__).parents[1]
PIP = Path(sys.executable).parent / "pip"


@pytest.fixture
def as_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """clipsrv lies among the packages, with no source around it."""
    monkeypatch.setattr(clipsrv, "__file__", str(tmp_path / "clipsrv" / "__init__.py"))


@pytest.fixture
def activated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(PIP.parent))


@pytest.mark.usefixtures("activated")
def test_in_a_clone_it_is_the_extra_of_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert how_to_install("heic") == "pip install --editable '.[heic]'"
    monkeypatch.chdir(tmp_path)
    assert how_to_install("heic") == f"pip install --editable '{ROOT}[heic]'"


@pytest.mark.usefixtures("as_a_wheel", "activated")
@pytest.mark.parametrize("extra", ["cpu", "gpu", "openvino", "heic", "siglip", "open_clip", "parquet", "postgres"])
def test_beside_a_wheel_it_is_the_packages_that_the_extra_names(extra: str) -> None:
    shown = how_to_install(extra)
    (listed,) = re.findall(rf"^{extra} =\n    (.+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    package = re.match(r"[\w-]+(?:\[[\w,]+\])?", listed)
    assert package is not None
    assert re.fullmatch(rf"pip install '?{re.escape(package[0])}[^ ]*", shown)


@pytest.mark.usefixtures("as_a_wheel", "activated")
def test_beside_a_wheel_without_metadata_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", none)
    assert how_to_install("heic") == "pip install what clipsrv's extra heic names"


@pytest.mark.usefixtures("activated")
def test_what_cannot_stay_beside_it_is_uninstalled_first() -> None:
    shown = how_to_install("gpu", instead_of=("numpy", "no-such-package"))
    assert shown.startswith("pip uninstall numpy, then pip install ")


def test_where_the_environment_is_not_activated_its_python_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert how_to_install("heic").startswith(f"{tmp_path}/.venv/bin/python -m pip install ")
    monkeypatch.chdir(tmp_path)
    assert how_to_install("heic").startswith(".venv/bin/python -m pip install ")


@pytest.mark.usefixtures("as_a_wheel")
def test_what_a_shell_makes_of_it_is_a_requirement_that_is_met_here() -> None:
    wanted = Requirement(shlex.split(how_to_install("heic"))[-1])
    assert wanted.name == "pillow-heif"
    assert wanted.specifier.contains(metadata.version(wanted.name))


def test_nothing_asks_to_install_clipsrv_by_a_name_that_no_registry_knows() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("clients/*/*.md"), *ROOT.glob("deploy/*")]
    written = {".py", ".js", ".html"}
    sources = [
        one for folder in ("clipsrv", "conversions") for one in (ROOT / folder).rglob("*") if one.suffix in written
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in (*pages, *sources) if path.is_file()}
    asks = re.compile(r"(pip|npm) +(install|i) [^`\n]*?['\" ]?clipsrv(-client)?([\[ '\"`]|$)", re.MULTILINE)
    assert [path for path, text in texts.items() if asks.search(text)] == []
