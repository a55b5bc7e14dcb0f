"""The control groups that hold this process, of both versions: folders only, whatever their files mean.

A service's group lies below the root, a container's is all that it sees: so where the trees are mounted and where the
process stands in them is read from /proc (cgroups(7), proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

#: Of /proc/PID/cgroup: what stands for the one tree of version 2, which has all controllers.
_UNIFIED = ""


class _Tree(NamedTuple):
    """A tree of groups: `mount` is where its group `root` is to be found."""

    controllers: frozenset[str]
    root: PurePosixPath
    mount: Path


def own_groups(controller: str, proc: Path = Path("/proc/self")) -> Iterator[Path]:
    """Folders of the groups that bound this process by `controller` (cpu, memory), each before those around it."""
    stands = _places(proc)
    for tree in _trees(proc):
        for name in {controller, _UNIFIED} & tree.controllers & stands.keys():
            # Seen from inside a container, a process may stand outside of what is mounted: the top is all there is.
            place = stands[name]
            seen = place.is_relative_to(tree.root) and ".." not in place.parts
            inside = place.relative_to(tree.root) if seen else PurePosixPath()
            yield from (tree.mount / inside, *(tree.mount / above for above in inside.parents))


def _places(proc: Path) -> dict[str, PurePosixPath]:
    """Where the process stands in the tree of each controller: lines of `number:controllers:path`."""
    lines = (line.split(":", 2) for line in _read(proc / "cgroup").splitlines())
    return {name: PurePosixPath(line[2]) for line in lines if len(line) == 3 for name in line[1].split(",")}


def _trees(proc: Path) -> Iterator[_Tree]:
    for line in _read(proc / "mountinfo").splitlines():
        mounted, _, kind = line.partition(" - ")
        fields, (filesystem, *options) = mounted.split(" "), kind.split(" ") or [""]
        if filesystem in {"cgroup", "cgroup2"} and len(fields) > 4:
            names = {_UNIFIED} if filesystem == "cgroup2" else set(options[-1].split(","))
            root, mount = (_plain(fields[index]) for index in (3, 4))
            yield _Tree(frozenset(names), PurePosixPath(root), Path(mount))


def _plain(path: str) -> str:
    """A path of mountinfo, where blanks are written as their octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
