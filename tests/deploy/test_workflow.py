"""The workflow tries what is promised: every Python, every installation, every image."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

import clipsrv
from drills.containers.__main__ import STEPS

ROOT = Path(__file__).parents[2]
JOBS: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_every_python_from_the_oldest_allowed_is_tried() -> None:
    (oldest,) = re.findall(r"^python_requires = >=(.+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    for job in ("test", "install"):
        versions = JOBS[job]["strategy"]["matrix"]["python"]
        assert versions[0] == oldest
        assert versions == [f"3.{minor}" for minor in range(11, 11 + len(versions))]
        assert "3.14" in versions
    assert commands("test")[-1] == "scripts/test"
    assert commands("install") == ["scripts/try-install"]


def test_every_target_of_the_dockerfile_and_every_recipe_is_tried() -> None:
    targets = re.findall(
        r"^FROM (?:runtime|base) AS (?!install)(\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert set(targets) == {"cpu", "gpu", "convert"}
    assert {*targets, "compose", "service"} <= set(STEPS)
    assert commands("containers") == ["scripts/try-containers"]


RELEASE: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]


def test_a_release_has_a_wheel_of_every_platform_that_the_page_promises() -> None:
    machines = RELEASE["wheel"]["strategy"]["matrix"]["machine"]
    page = (ROOT / "docs/release.md").read_text(encoding="utf-8")
    promised = re.findall(r"^\| ([^|]+) \| by the workflow", page, re.MULTILINE)
    assert len(promised) == len(machines) == 3
    assert RELEASE["draft"]["needs"] == ["wheel", "source"]


def test_one_wheel_is_built_for_the_oldest_python_and_tried_with_what_it_needs() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    (tag,) = re.findall(r"^py_limited_api = (cp\d+)$", setup, re.MULTILINE)
    assert built["build"] == f"{tag}-*"
    assert f"python_requires = >=3.{tag.removeprefix('cp3')}" in setup
    assert [f"\n{extra} =\n" in setup for extra in built["test-extras"]] == [True]


def test_a_tag_that_is_not_the_version_is_refused() -> None:
    checks = [step["run"] for step in RELEASE["draft"]["steps"] if "grep" in step.get("run", "")]
    environment = {**os.environ, "GITHUB_REF_NAME": f"v{clipsrv.__version__}"}
    for tag, status in ((environment["GITHUB_REF_NAME"], 0), ("v9.9.9", 1)):
        done = subprocess.run(["bash", "-c", *checks], cwd=ROOT, env={**environment, "GITHUB_REF_NAME": tag})
        assert done.returncode == status
