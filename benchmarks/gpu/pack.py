"""The folder that travels: the source, wheels for the other machine's Python, photographs; cut into pieces.

What is packed is what is installed here, in its versions: the set that is known to work together. unpack.py undoes it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.setting import IMAGES

ROOT = Path(__file__).parents[2]
#: Of the source what the sections run; the compiled parts as they stand here too, for a machine without a compiler.
SOURCE = ("clipsrv", "conversions", "benchmarks", "scripts", "setup.py", "setup.cfg", "tests/golden")
#: Bytes of one piece, and of a numbered folder unless --piece says otherwise.
PIECE = 45 * 2**20
#: What server, converter and the Flask baseline need beside torch, numpy and onnx, which the other machine brings.
PACKAGES = (
    *("aiohttp", "aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "idna", "multidict", "propcache", "yarl"),
    *("multipart", "orjson", "pillow", "prometheus-client", "tokenizers", "tqdm", "typing-extensions"),
    *("transformers", "huggingface-hub", "optimum", "optimum-onnx", "safetensors", "filelock", "fsspec", "packaging"),
    *("regex", "requests", "urllib3", "certifi", "charset-normalizer", "pyyaml"),
    *("flask", "werkzeug", "blinker", "click", "itsdangerous", "jinja2", "markupsafe"),
)
#: onnxruntime for either device: one of these is on the path at a time, since they overwrite one another's files.
RUNTIMES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu[cuda,cudnn]>=1.24,<2"}
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

#: Puts the wheels of requirements, and of nothing that they require, into a folder.
Download = Callable[[Sequence[str], Path], None]


def pack(folder: Path, photographs: Path | None, piece: int = PIECE, download: Download | None = None) -> list[Path]:
    """Writes numbered folders of at most `piece` bytes into `folder`, which is replaced; returns them.

    `photographs` is a folder of encoded images as benchmarks.photos keeps them. The source and what converting needs
    come first, so that the other machine can begin before onnxruntime-gpu, much the largest, is there.
    """
    download = download or fetch
    with TemporaryDirectory(prefix="prove-gpu-") as scratch:
        stage = Path(scratch)
        _pack_source(stage / "source.tar.gz")
        for kind, wanted in {"both": [pinned(name) for name in PACKAGES], **_runtimes()}.items():
            (stage / kind).mkdir()
            download(wanted, stage / kind)
        files = [stage / "source.tar.gz", *sorted((stage / "both").iterdir()), *sorted((stage / "cpu").iterdir())]
        if photographs is not None:
            shutil.copytree(photographs, stage / IMAGES)
            files += sorted((stage / IMAGES).iterdir())
        files += sorted((stage / "gpu").iterdir())
        return _write_pieces(files, stage, folder, piece)


def fetch(requirements: Sequence[str], folder: Path) -> None:
    """By pip, for CPython 3.12 on 64-bit x86 Linux."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    command += [part for platform in _PLATFORMS for part in ("--platform", platform)]
    subprocess.run([*command, *requirements], check=True)


def pinned(package: str) -> str:
    """The version that is installed here, or any if none is."""
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package


def _runtimes() -> dict[str, list[str]]:
    return {"cpu": [pinned(RUNTIMES["cpu"])], "gpu": [RUNTIMES["gpu"]]}


def _pack_source(archive: Path) -> None:
    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in entry.name else entry

    with tarfile.open(archive, "w:gz") as packed:
        for name in SOURCE:
            packed.add(ROOT / name, name, filter=wanted)


def _write_pieces(files: Iterable[Path], stage: Path, folder: Path, piece: int) -> list[Path]:
    """Files whole where they fit, else cut; index.json in the first folder names all and how long each is."""
    shutil.rmtree(folder, ignore_errors=True)
    folders: list[Path] = []
    index: dict[str, int] = {}
    room = 0
    for file in files:
        name, size, begun = file.relative_to(stage).as_posix(), file.stat().st_size, 0
        index[name] = size
        with file.open("rb") as content:
            while begun < size or not size:
                if room <= 0:
                    folders.append(folder / str(len(folders) + 1))
                    folders[-1].mkdir(parents=True)
                    room = piece
                part = content.read(room)
                target = folders[-1] / f"{name.replace('/', '@')}.{begun}"
                target.write_bytes(part)
                begun, room = begun + len(part), room - len(part)
                if not size:
                    break
    (folders[0] / "index.json").write_text(json.dumps(index))
    return folders
