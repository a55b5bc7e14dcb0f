"""The files that an index tells of: only those, and only as long as they are what was indexed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clipsrv.documents import open_file
from clipsrv.errors import OriginalError
from clipsrv.search.words import Item


def original(item: Item, beside: Path, max_bytes: int) -> bytes:
    """The bytes of an indexed image. A relative path is looked for from the working directory, and from the folder
    `beside` which the index lies in.

    Raises OriginalError if there is no such file of at most `max_bytes` with the content that was indexed.
    """
    reason = "is not there any more"
    for folder in (Path(), beside):
        try:
            with open_file(folder / item.path) as file:
                blob = file.read(max_bytes + 1)
        except (OSError, ValueError):  # ValueError: a name that no file can have
            continue
        if len(blob) <= max_bytes and hashlib.sha256(blob).hexdigest() == item.sha256:
            return blob
        reason = "is another image by now"
    raise OriginalError(f"{item.path} {reason}.")
