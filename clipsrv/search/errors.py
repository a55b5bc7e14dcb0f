"""What can be wrong with an index."""

from __future__ import annotations

from typing import ClassVar

from clipsrv.errors import StartError


class UnusableIndexError(StartError):
    """The index cannot be read, is damaged, or was made by another model than the one that asks."""

    code = "unusable_index"
    exit_status: ClassVar[int] = 6
