"""A packed folder to what the sections run on: source, wheels installed beside this Python's own, photographs.

Standard library and pip only. What is there already is not made again, so a machine can begin with the first pieces.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.setting import IMAGES

#: Where pip puts each kind of wheel.
_SITES = ("both", "cpu", "gpu")


@dataclass(frozen=True)
class Place:
    """A source to run, and folders of packages that go before this Python's own."""

    source: Path
    sites: Path | None = None

    def environment(self, runtime: str) -> Mapping[str, str]:
        """For a process that computes with the onnxruntime of `runtime`, cpu or gpu."""
        path = [str(self.source)]
        if self.sites is not None:
            path += [str(self.sites / runtime), str(self.sites / "both")]
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        libraries = [*cuda_libraries(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {
            **os.environ,
            **offline,
            "PYTHONPATH": os.pathsep.join(path),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        }


def unpack(
    folder: Path,
    work: Path,
    *,
    runtimes: tuple[str, ...] = ("cpu", "gpu"),
    compile: Callable[[Path], None] | None = None,
) -> Place:
    """Puts together in `work` what is needed for `runtimes`; `compile` is told the source, whose compiled parts stay
    as they travelled where it makes none. Raises SystemExit naming a piece that has not come."""
    index: dict[str, int] = json.loads(next(folder.glob("*/index.json")).read_text())
    source = work / "source"
    for name, size in index.items():
        kind = name.partition("/")[0]
        if kind in ("cpu", "gpu") and kind not in runtimes:
            continue
        target = work / "packed" / name
        if not (target.exists() and target.stat().st_size == size):
            _join(folder, name, size, target)
    if not source.exists():
        _unpack_source(work / "packed" / "source.tar.gz", source, compile or compile_parts)
    (work / IMAGES).mkdir(parents=True, exist_ok=True)
    for image in (work / "packed" / IMAGES).glob("*"):
        shutil.copy(image, work / IMAGES)
    for kind in ("both", *runtimes):
        _install(sorted((work / "packed" / kind).glob("*.whl")), work / "site" / kind)
    return Place(source, work / "site")


def cuda_libraries() -> list[str]:
    """Folders of the libraries that torch's own packages of CUDA and cuDNN brought."""
    roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return sorted(str(path) for root in roots for path in Path(root, "nvidia").glob("*/lib"))


def _join(folder: Path, name: str, size: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("wb") as joined:
        while joined.tell() < size:
            piece = next(folder.glob(f"*/{name.replace('/', '@')}.{joined.tell()}"), None)
            if piece is None:
                raise SystemExit(f"{name} has not come whole: the piece at byte {joined.tell()} is missing")
            joined.write(piece.read_bytes())
    if partial.stat().st_size != size:
        raise SystemExit(f"{name} has {partial.stat().st_size} bytes, not the {size} that were packed")
    partial.rename(target)


def extract(packed: tarfile.TarFile, folder: Path) -> None:
    """All of an archive of our own. Python knows filters from 3.11.4 on, and asks for one later."""
    if hasattr(tarfile, "data_filter"):
        packed.extractall(folder, filter="data")
    else:
        packed.extractall(folder)


def compile_parts(source: Path) -> None:
    """By this machine's compiler, if it has one."""
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=source, capture_output=True)


def _unpack_source(archive: Path, source: Path, compile: Callable[[Path], None]) -> None:
    partial = source.with_name("source.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as packed:
        extract(packed, partial)
    carried = {path: path.read_bytes() for path in partial.glob("clipsrv/**/*.so")}
    compile(partial)
    for path, content in carried.items():
        if not list(path.parent.glob(f"{path.name.partition('.')[0]}.*so")):
            path.write_bytes(content)
    partial.rename(source)


def _install(wheels: list[Path], site: Path) -> None:
    if site.exists() or not wheels:
        return
    partial = site.with_name(f"{site.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--root-user-action=ignore", "--target"]
    subprocess.run([*command, str(partial), *map(str, wheels)], check=True)
    partial.rename(site)
