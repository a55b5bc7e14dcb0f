"""Which clipsrv runs, which others it shadows, and how what it lacks is installed beside it.

A clone's source and an installed package can stand side by side. Knows nothing of what clipsrv does; asks Python's own
finders.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
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


def how_to_install(extra: str, *, instead_of: tuple[str, ...] = ()) -> str:
    """The command that installs what an extra of clipsrv brings, for the Python and the clipsrv that run: the extra of
    the clone, or for one that came as a wheel the packages by their names, since pip knows no clipsrv to fetch.

    `instead_of` are packages that cannot stay beside it: those that are here are uninstalled first.
    """
    there = [name for name in instead_of if _is_installed(name)]
    clone = Path(clipsrv.__file__).resolve().parents[1]
    if (clone / "setup.cfg").is_file():
        folder = "." if clone == Path.cwd() else str(clone)
        wanted = f"--editable {shlex.quote(f'{folder}[{extra}]')}"
    else:
        wanted = " ".join(map(shlex.quote, _requirements(extra))) or f"what clipsrv's extra {extra} names"
    return (f"{pip()} uninstall {' '.join(there)}, then " if there else "") + f"{pip()} install {wanted}"


def pip() -> str:
    """`pip` where the shell takes this Python's, else this Python and the module."""
    found, python = shutil.which("pip"), Path(sys.executable)
    if found is not None and Path(found).parent == python.parent:
        return "pip"
    inside = python.is_relative_to(Path.cwd())
    return f"{shlex.quote(str(python.relative_to(Path.cwd()) if inside else python))} -m pip"


def _requirements(extra: str) -> list[str]:
    """What an extra names, by the metadata of the clipsrv that is installed."""
    of_extra = re.compile(rf"(.+?); (?:.+ and )?extra == .{re.sub('[-_.]+', '[-_.]+', extra)}.")
    try:
        return [found[1] for line in metadata.requires("clipsrv") or () if (found := of_extra.fullmatch(line))]
    except metadata.PackageNotFoundError:
        return []


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


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
