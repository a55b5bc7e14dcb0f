"""The workflow tries what is promised: every Python, every installation, every image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

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
