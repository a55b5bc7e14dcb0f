"""Reading files that others wrote: never waited for, and of JSON only what is not too large and can be written again.

Knows nothing of what the files say.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

#: A manifest has some kilobytes.
MAX_BYTES = 4 * 2**20


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """`path` opened for reading. Raises OSError, also if it is no regular file: a named pipe would be waited for."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        yield file


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """The document in `path`.

    Raises OSError as `open_file`; ValueError or RecursionError if it has more than `max_bytes`, is not JSON in UTF-8,
    or holds what could not be passed on: NaN, infinity, lone surrogates.
    """
    with open_file(path) as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    document = json.loads(raw.decode("utf-8"))
    json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return document
