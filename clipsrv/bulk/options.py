"""What a person asks of one run of the embed command, beside the settings it shares with the server.

Checked when built; knows nothing of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipsrv.bulk.sources.local import Inputs
from clipsrv.errors import ConfigError


@dataclass(frozen=True)
class JobOptions:
    """`out` is a file's path or a URL; `errors` the file where bad images are listed, or None for one beside `out`.

    `patience` and `image_seconds` in seconds; of the latter 0 is no limit. Raises ConfigError for a value out of range.
    """

    inputs: Inputs
    out: str
    table: str = ""
    errors: str | None = None
    patience: float = 600.0
    image_seconds: float = 300.0
    shard_size: int = 256
    strict: bool = False
    restart: bool = False
    as_listed: bool = False
    quiet: bool = False
    prune: bool = False
    ann: bool = False

    def __post_init__(self) -> None:
        if self.shard_size < 1 or not self.patience >= 0 or not self.image_seconds >= 0:
            raise ConfigError("--shard-size must be 1 or more, --patience and --image-seconds 0 or more.")
        if not self.inputs.paths and not self.inputs.lists:
            raise ConfigError("No images are named: give images, folders or globs, --files-from or -.")
