"""What can go wrong while converting, and the exit status of each. Knows nothing of the libraries that raise it.

StartError (clipsrv.errors)
├── ModelError             3   the checkpoint or model folder is not usable (CheckpointError)
├── ConversionError        6   the disk, the export, or the result differing from the original (ParityError)
└── DownloadError          7   the Hugging Face Hub could not be reached, or sent something else
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipsrv.errors import ModelError, StartError


class CheckpointError(ModelError):
    code = "checkpoint_error"


class ConversionError(StartError):
    code = "conversion_failed"
    exit_status = 6


class ParityError(ConversionError):
    code = "parity_failed"


class DownloadError(StartError):
    code = "download_failed"
    exit_status = 7


@contextmanager
def explained(models_dir: Path) -> Iterator[None]:
    """Makes a ConversionError of whatever torch, onnx, onnxruntime or the disk raise."""
    try:
        yield
    except StartError:
        raise
    except Exception as error:
        raise ConversionError(_why(error, models_dir)) from error


def _why(error: Exception, models_dir: Path) -> str:
    """One sentence for an error of torch, onnx, onnxruntime or the disk."""
    reason = (str(error).strip().splitlines() or [""])[0][:240]
    full = shutil.disk_usage(models_dir).free < 2**20
    if isinstance(error, OSError) and error.errno is not None:
        reason = f"{error.strerror} ({Path(str(error.filename or models_dir)).name})"
    if full:
        return f"The disk of {models_dir} is full. Free some space and run it again. ({type(error).__name__}: {reason})"
    return f"The conversion failed and nothing was written: {type(error).__name__}: {reason}"
