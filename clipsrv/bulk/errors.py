"""What ends the job besides the faults of settings, model and device. Each has its own exit status."""

from __future__ import annotations

from typing import ClassVar

from clipsrv.errors import ConfigError, StartError

#: Exit status when inference itself fails or memory runs out.
ENGINE_EXIT_STATUS = 7
#: Exit status when an image takes more than its time; the next run leaves it out.
TOO_LONG_EXIT_STATUS = 8


class BadImagesError(StartError):
    """--strict, and at least one image could not be used."""

    code = "bad_images"
    exit_status: ClassVar[int] = 1


class NothingUsableError(StartError):
    """Of all that was named no image can be used."""

    code = "nothing_usable"
    exit_status: ClassVar[int] = ConfigError.exit_status


class OutputError(StartError):
    """The output cannot be written or continued. What was stored before stays."""

    code = "output_error"
    exit_status: ClassVar[int] = 6


class GivenUpError(Exception):
    """The job was asked to end while it waited for what lies elsewhere. The shard in work is left to the next run."""


class AwayError(Exception):
    """What takes a job's rows is away for now, for this reason."""


class FetchError(Exception):
    """What lies elsewhere cannot be had. `code` is a BadFile's: not_found, fetch_denied, fetch_failed, url_forbidden.

    `again` is whether another try may bring it, not before `after` seconds.
    """

    def __init__(self, code: str, message: str, *, again: bool = False, after: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.message, self.again, self.after = code, message, again, after
