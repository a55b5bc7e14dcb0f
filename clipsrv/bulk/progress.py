"""What a person sees of a job in shards: how far it is, how fast, and how long it will take. Knows nothing of the
work itself."""

from __future__ import annotations

import time
from typing import NoReturn

from tqdm import tqdm

from clipsrv.bulk.records import counted
from clipsrv.bulk.voice import Voice

#: Seconds between two lines where there is no terminal that could show a bar.
_PAUSE = 30.0


class Progress:
    """Entries that are dealt with, of those of one driver. Nothing is shown if `quiet`."""

    def __init__(self, *, quiet: bool, voice: Voice) -> None:
        self._quiet, self._voice = quiet, voice
        self._bar: tqdm[NoReturn] | None = None
        self._total = self._done = self.rows = self.bad = 0
        self._started = self._said = time.monotonic()

    def begun(self, total: int, done: int) -> None:
        """Of `total` entries `done` need no work."""
        self._total, self._done = total, done
        self._started = self._said = time.monotonic()
        hidden = self._quiet or not self._voice.isatty()
        self._bar = tqdm(total=total, initial=done, unit="image", file=self._voice, disable=hidden, dynamic_ncols=True)

    def advanced(self, rows: int, bad: int) -> None:
        """So many entries more have their vectors, and so many cannot be used."""
        self.rows, self.bad = self.rows + rows, self.bad + bad
        if self._bar is not None:
            self._bar.update(rows + bad)
        if not self._voice.isatty() and time.monotonic() - self._said > _PAUSE:
            self.say(self._how_far())

    def shard_done(self, number: int) -> None:
        """The shard `number` is in the output."""
        if not self._voice.isatty():
            self.say(f"Shard {number} is done. {self._how_far()}")

    def say(self, message: str) -> None:
        """One line, above the bar if there is one."""
        self._said = time.monotonic()
        if not self._quiet:
            tqdm.write(message, file=self._voice)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def in_words(self) -> str:
        """What this run did."""
        seconds = time.monotonic() - self._started
        said = f"{self.rows:,} embedded" + (f", {self.bad:,} bad" if self.bad else "")
        return f"{said} in {seconds:.1f} s ({self._rate():.1f} images/s)" if self.rows else said

    def _rate(self) -> float:
        return (self.rows + self.bad) / max(time.monotonic() - self._started, 1e-9)

    def _how_far(self) -> str:
        dealt_with = self._done + self.rows + self.bad
        left = (self._total - dealt_with) / self._rate() if self.rows + self.bad else 0.0
        bad = f", {self.bad:,} bad" if self.bad else ""
        return (
            f"{dealt_with:,} of {counted(self._total, 'image')}{bad}, {self._rate():,.1f} images/s, "
            f"{_duration(left)} left."
        )


def _duration(seconds: float) -> str:
    """In the two largest of days, hours, minutes and seconds."""
    whole = round(seconds)
    parts = [(whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
