"""Log lines, one a record whatever a caller sends, written by a thread of their own.

A reader of our output that stops reading must not stop the server: what finds no room is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

import orjson

TEXT, JSON = "text", "json"
#: Records that may wait for whoever reads our output.
_ROOM = 10_000
_LONGEST = 2000
_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: Everything a terminal, or a parser of lines, might take for more than a character.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


def fields(**values: Any) -> dict[str, Any]:
    """`extra` of a log call: facts that become keys in JSON and `key=value` in text."""
    return {"fields": values}


class TextFormatter(logging.Formatter):
    """TIME LEVEL message key=value ...; a traceback follows indented, on lines of its own. `always` is in all."""

    def __init__(self, always: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        facts = " ".join(f"{key}={_plain(value)}" for key, value in {**_facts(record), **self._always}.items())
        stamp = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}"
        line = f"{stamp} {record.levelname} {_plain(record.getMessage())} {facts}".rstrip()
        return line + _indented(self.formatException(record.exc_info)) if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (ISO 8601, UTC), level, message, the facts, error for a traceback; `always` in all."""

    def __init__(self, always: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        body = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": _plain(record.getMessage()),
            **{key: _plain(value) if isinstance(value, str) else value for key, value in _facts(record).items()},
            **self._always,
        }
        if record.exc_info:
            body["error"] = self.formatException(record.exc_info).encode("utf-8", "backslashreplace").decode()
        return orjson.dumps(body, default=str).decode()


class LogPump(logging.Handler):
    """Hands records to a thread that writes them to `stream`; never waits."""

    def __init__(self, stream: TextIO, form: str, room: int = _ROOM, always: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__()
        self.dropped = 0
        self.setFormatter(JsonFormatter(always) if form == JSON else TextFormatter(always))
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(room)
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Writes what waits, for at most a second: whoever reads may never come back."""
        deadline = time.monotonic() + 1
        try:
            self._lines.put(None, timeout=0.5)
        except queue.Full:
            pass
        else:
            self._writer.join(max(0.0, deadline - time.monotonic()))
        super().close()

    def _write(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self.dropped > told:
                    told = self.dropped
                    self._stream.write(self.format(_dropped(told)) + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # the reader has gone, or the disk is full: serving matters more
                self.dropped += 1


def set_up(level: str, form: str, stream: TextIO | None = None, always: Mapping[str, Any] = _NOTHING) -> LogPump:
    """Sends everything logged at `level` or above to `stream` (default stderr) in `form`, text or json, with the facts
    that `always` hold."""
    pump = LogPump(stream or _own_stderr(), form, always=always)
    logging.raiseExceptions = False
    logging.basicConfig(level=level.upper(), handlers=[pump], force=True)
    logging.captureWarnings(True)
    # Pillow warns of oddities in images that it reads all the same: callers must not write our log.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Its debugging lines repeat what is written in images: who, when and where.
    logging.getLogger("PIL").setLevel(logging.INFO)
    return pump


def _own_stderr() -> TextIO:
    """stderr without the lock of sys.stderr: whoever flushes that, as logging.shutdown() does, must not wait for a
    writer that nobody reads."""
    if sys.stderr is None:  # closed by whoever started us; its number may by now be another file's
        return open(os.devnull, "w")
    return open(sys.stderr.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts: dict[str, Any] = getattr(record, "fields", {})
    return facts


def _dropped(count: int) -> logging.LogRecord:
    message = "log lines were dropped: nobody read them in time"
    return logging.makeLogRecord({"msg": message, "levelname": "WARNING", **fields(dropped=count)})


def _plain(value: object) -> str:
    """The value in printable characters, cut to a sane length."""
    return str(value)[:_LONGEST].encode("utf-8", "backslashreplace").decode().translate(_CONTROL)


def _indented(text: str) -> str:
    lines = text.encode("utf-8", "backslashreplace").decode().splitlines()
    return "".join(f"\n    {line.translate(_CONTROL)}" for line in lines)
