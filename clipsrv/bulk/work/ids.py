"""Which entries of a list repeat an id, for lists of any length: hashes in files by their first byte, each sorted.

Private to this process and gone with it. Memory does not grow with the list but by 16 bytes for each repeated id, and a
256th of its hashes while they are sorted.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsrv.bulk.errors import OutputError

#: The hash of an id in two halves, a hash of its path that means something in this process alone, and its row.
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("path", "<i8"), ("row", "<i8")])
_PACK = struct.Struct("<16sqq").pack
#: Bytes held of each file before they are written.
_HELD = 1 << 16
#: What `Ids.repeated` gives of each entry.
REPEATED = np.dtype([("row", "<i8"), ("first", "<i8"), ("same", "?")])


class Ids:
    """Ids as they come, each with its path and its row, which grows."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="clipsrv-ids-")
        self._held = [bytearray() for _ in range(256)]

    def add(self, identity: str, path: str, row: int) -> None:
        """Raises UnicodeEncodeError for an id that is not Unicode, OutputError if the disk is full."""
        digest = hashlib.blake2b(identity.encode(), digest_size=16).digest()
        held = self._held[digest[0]]
        held += _PACK(digest, hash(path), row)
        if len(held) >= _HELD:
            self._write(digest[0])

    def repeated(self) -> NDArray[np.void]:
        """The entries whose id an earlier one has, as REPEATED: their row, that of the first with the id, and whether
        both have the `same` path. In the order of rows."""
        found = [self._repeated_in(bucket) for bucket in range(256)]
        together: NDArray[np.void] = np.concatenate(found)
        together.sort(order="row")
        return together

    def close(self) -> None:
        self._folder.cleanup()

    def _repeated_in(self, bucket: int) -> NDArray[np.void]:
        self._write(bucket)
        file = self._file(bucket)
        records = np.fromfile(file, _RECORD) if file.exists() else np.empty(0, _RECORD)
        records = records[np.lexsort((records["row"], records["low"], records["high"]))]
        begins = np.ones(len(records), bool)
        begins[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
        firsts = records[np.maximum.accumulate(np.where(begins, np.arange(len(records)), 0))]
        again = ~begins
        found = np.empty(int(again.sum()), REPEATED)
        found["row"], found["first"] = records["row"][again], firsts["row"][again]
        found["same"] = records["path"][again] == firsts["path"][again]
        return found

    def _write(self, bucket: int) -> None:
        held = self._held[bucket]
        if held:
            try:
                with self._file(bucket).open("ab") as file:
                    file.write(held)
            except OSError as error:
                raise OutputError(
                    f"Cannot keep the ids of the list in {self._folder.name}: {error.strerror}."
                ) from None
            held.clear()

    def _file(self, bucket: int) -> Path:
        return Path(self._folder.name, f"{bucket:02x}")


def by_shard(repeated: NDArray[np.void], rows: int) -> Iterator[tuple[int, NDArray[np.void]]]:
    """What `Ids.repeated` gave, by the shards of `rows` that it is in; their rows count from the shard's first."""
    shards = repeated["row"] // rows
    for part in np.split(repeated, np.flatnonzero(np.diff(shards)) + 1):
        if len(part):
            number = int(part["row"][0] // rows)
            inside = part.copy()
            inside["row"] -= number * rows
            yield number, inside
