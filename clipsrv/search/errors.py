"""What can be wrong with an index, or with the file of one of its images."""

from __future__ import annotations

from typing import ClassVar

from clipsrv.errors import ClipsrvError, StartError


class UnusableIndexError(StartError):
    """The index cannot be read, is damaged, or was made by another model than the one that asks."""

    code = "unusable_index"
    exit_status: ClassVar[int] = 6


class OriginalError(ClipsrvError):
    """The file of an indexed image is not there any more, or is another by now."""

    code = "original_unavailable"
