"""What can go wrong while converting, and the exit status of each. Knows nothing of the libraries that raise it.

StartError (clipsrv.errors)
├── ModelError             3   the checkpoint or model folder is not usable (CheckpointError)
├── ConversionError        6   the disk, the export, or the result differing from the original (ParityError)
└── DownloadError          7   the Hugging Face Hub could not be reached, or sent something else
"""

from __future__ import annotations

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
