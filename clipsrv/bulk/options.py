"""What a person asks of one run of the embed command, beside the settings it shares with the server.

Checked when built; knows nothing of the command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.errors import ConfigError

#: Who computes the shards of a job.
LOCAL, RAY = ENGINES = ("local", "ray")


@dataclass(frozen=True)
class JobOptions:
    """`out` is a file's path or a URL; `errors` the file where bad images are listed, or None for one beside `out`.

    `patience` and `image_seconds` in seconds; of the latter 0 is no limit. With `work`, a folder's path or URL, it is
    a job in shards. Raises ConfigError for a value out of range, and for what does not go together.
    """

    inputs: Inputs
    out: str
    table: str = ""
    errors: str | None = None
    patience: float = 600.0
    image_seconds: float = 300.0
    shard_size: int = 256
    fetch_threads: int = 32
    strict: bool = False
    restart: bool = False
    as_listed: bool = False
    quiet: bool = False
    prune: bool = False
    ann: bool = False
    work: str | None = None
    rows_per_shard: int = 100_000
    shard: str | None = None
    engine: str = LOCAL
    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1 or not self.patience >= 0 or not self.image_seconds >= 0:
            raise ConfigError("--shard-size must be 1 or more, --patience and --image-seconds 0 or more.")
        if not 1 <= self.fetch_threads <= 1024 or not self.inputs.fetching.seconds > 0:
            raise ConfigError("--fetch-threads must be 1 to 1024, --fetch-seconds more than 0.")
        if not self.inputs.paths and not self.inputs.lists:
            raise ConfigError("No images are named: give images, folders or globs, --files-from or -.")
        self._check_shards()

    @property
    def part(self) -> tuple[int, int]:
        """Which part of the shards, and of how many: (0, 1) is all of them. Raises ConfigError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard or "0/1", re.ASCII)
        if not found or not int(found[1]) < int(found[2]):
            raise ConfigError(f"--shard must be I/N, with I from 0 to N - 1, not {self.shard!r}.")
        return int(found[1]), int(found[2])

    @property
    def rows_in_shard(self) -> int:
        """Rows of a shard: whole stretches, so that batches are cut alike whoever computes it."""
        return -(-self.rows_per_shard // self.shard_size) * self.shard_size

    def _check_shards(self) -> None:
        of_shards = {"--shard": self.shard, "--engine": self.engine != LOCAL}
        of_files = {"--restart": self.restart, "--as-listed": self.as_listed, "--prune": self.prune, "--ann": self.ann}
        of_ray = {"--address": self.address, "--actors": self.actors, "--gpus-per-actor": self.gpus_per_actor}
        _ = self.part
        if self.rows_per_shard < 1:
            raise ConfigError("--rows-per-shard must be 1 or more.")
        if self.work is None and (named := _first_given(of_shards)):
            raise ConfigError(f"{named} is for a job in shards: name its folder with --work.")
        if self.work is not None and (named := _first_given({**of_files, "--errors": self.errors})):
            raise ConfigError(
                f"{named} is not for a job in shards (--work): its list and its failures are in that folder."
            )
        if self.engine != RAY and (named := _first_given(of_ray)):
            raise ConfigError(f"{named} is for --engine ray.")
        if (self.actors is not None and self.actors < 1) or not (self.gpus_per_actor or 0) >= 0:
            raise ConfigError("--actors must be 1 or more, --gpus-per-actor 0 or more.")


def _first_given(values: Mapping[str, object]) -> str | None:
    return next((name for name, value in values.items() if value not in (None, False)), None)
