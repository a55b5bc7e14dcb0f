"""Libraries that an execution provider needs beside onnxruntime: loaded from the packages that bring them, or named.

CUDA's and cuDNN's packages put their files where no loader looks; onnxruntime has a function that finds them.
"""

from __future__ import annotations

import ctypes
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import onnxruntime as ort

_FOLDER = Path(ort.__file__).parent / "capi"


def preload() -> None:
    """Loads CUDA and cuDNN from their packages, or from where the loader finds them; nothing where there are none."""
    with redirect_stdout(StringIO()):  # it prints what it misses, some of which may not be needed
        ort.preload_dlls()


def missing(library: str, folder: Path = _FOLDER) -> str:
    """Why a provider's library cannot be loaded, in the loader's words, or "" if it can."""
    try:
        for path in (*folder.glob("libonnxruntime_providers_shared.*"), folder / library):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return ""
