"""Python programs in scripts/, whose names do not say so, are formatted, linted and typed like the rest."""

from __future__ import annotations

import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "scripts").iterdir()
    if "python" in path.read_text(encoding="utf-8").partition("\n")[0]
)


def test_there_are_python_programs_among_the_scripts() -> None:
    assert "scripts/try-docs" in PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_python_program_is_linted_and_typed(program: str) -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert program in [name.strip() for name in setup["mypy"]["files"].replace("\n", ",").split(",")]
    assert program in tomllib.loads((ROOT / "ruff.toml").read_text(encoding="utf-8"))["extend-include"]
