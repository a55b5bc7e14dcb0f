"""What a person sees: a progress bar, bad images in a file, one line at the end. Knows nothing of the work itself."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

from tqdm import tqdm

from clipsrv.bulk.job import Summary
from clipsrv.bulk.records import BadFile, counted
from clipsrv.bulk.stores.parts import reporting
from clipsrv.bulk.voice import Voice


class Report:
    """The job's observer. Bad images go to `errors`, one JSON object a line; without any there is no such file."""

    def __init__(self, errors: Path, *, quiet: bool, voice: Voice) -> None:
        """Nothing is shown if `quiet`; the bar only if `voice` is a terminal."""
        self._errors, self._quiet, self._voice = errors, quiet, voice
        self._file: IO[str] | None = None
        self._started = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Report:
        with reporting(self._errors):
            self._errors.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._file is not None:
            with reporting(self._errors):
                self._file.close()

    @property
    def reasons(self) -> str:
        """Where bad images are listed."""
        return f"Reasons are in {self._errors}."

    def begun(self, total: int, done: int) -> None:
        hidden = self._quiet or not self._voice.isatty()
        self._bar = tqdm(total=total, initial=done, unit="image", file=self._voice, disable=hidden, dynamic_ncols=True)

    def advanced(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def found_bad(self, bad: BadFile) -> None:
        with reporting(self._errors):
            if self._file is None:
                self._file = self._errors.open("w", encoding="utf-8")
            self._file.write(json.dumps(asdict(bad), ensure_ascii=False) + "\n")
            self._file.flush()

    def say(self, message: str) -> None:
        """One line, above the bar if there is one."""
        if not self._quiet:
            tqdm.write(message, file=self._voice)

    def conclude(self, summary: Summary, outcome: str) -> None:
        """The last line of a run that was not ended by an error."""
        seconds = time.monotonic() - self._started
        said = f"{summary.embedded:,} embedded"
        said += f", {counted(summary.duplicates, 'duplicate')}" if summary.duplicates else ""
        said += f", {summary.stored:,} stored before" if summary.stored else ""
        said += f", {summary.bad:,} bad" if summary.bad else ""
        rate = f" in {seconds:.1f} s ({summary.embedded / seconds:.1f} images/s)" if summary.embedded else ""
        self.say(f"{outcome}: {said}{rate}." + (f" {self.reasons}" if summary.bad else ""))
