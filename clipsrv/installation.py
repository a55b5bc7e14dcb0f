"""Which clipsrv runs, and which others it shadows: a clone's source and an installed package can stand side by side.

Knows nothing of what clipsrv does; asks Python's own finders.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

import clipsrv


class Installation(NamedTuple):
    """One clipsrv on this Python's path. `compiled` is whether its resize is."""

    folder: Path
    version: str
    compiled: bool


def installations() -> list[Installation]:
    """The clipsrv that runs, then those that Python would take if it were not there, in that order."""
    here = Path(clipsrv.__file__).resolve().parent
    return [_read(folder) for folder in dict.fromkeys([here, *_found()])]


def program() -> str:
    """The words this process was started by: the command that pip installs, or Python and the module."""
    return "clipsrv" if Path(sys.argv[0]).stem == "clipsrv" else "python -m clipsrv"


def _found() -> Iterator[Path]:
    specs: list[ModuleSpec | None] = [PathFinder.find_spec("clipsrv", [entry]) for entry in sys.path]
    # Editable installations have finders of their own.
    specs += [finder.find_spec("clipsrv", None) for finder in sys.meta_path if finder is not PathFinder]
    for spec in specs:
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            yield Path(spec.origin).resolve().parent


def _read(folder: Path) -> Installation:
    found = re.search(r'^__version__ = "(.+)"$', (folder / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    compiled = any((folder / "images" / f"_resize{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
    return Installation(folder, found[1] if found else "of an unknown version", compiled)
