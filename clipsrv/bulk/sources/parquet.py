"""Rows of Parquet files: an id, and an image in the row or where it lies. An image in a row is read by its place.

Rows are read in stretches of few bytes, forward: images that are asked for in order are decoded once.
"""

from __future__ import annotations

import io
import re
import threading
import zlib
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.columns import Columns, entry_of
from clipsrv.errors import ConfigError, ImageTooLargeError
from clipsrv.installation import how_to_install

if TYPE_CHECKING:
    from pyarrow import parquet

#: The end of a Parquet file's name.
SUFFIX = ".parquet"

Open = Callable[[], BinaryIO]

_PATH = re.compile(r"parquet://(\d{1,15})\+([0-9a-f]{8})@(.+)#([^#]+)", re.DOTALL)
_ROWS = 4_096
#: Bytes of images in one stretch, and how many stretches stay for threads that ask a little out of order.
_STRETCH, _KEPT = 4 << 20, 4
_OPEN = 8
_BUFFER = 1 << 20


def is_row(path: str) -> bool:
    """Whether `path` is that of an image in a row."""
    return path.startswith("parquet://")


def rows_of(tables: Entry, open_file: Open, columns: Columns) -> Iterator[Entry | BadFile]:
    """An entry for each row of the file `tables`, in order. Raises ConfigError for a file that cannot be read, or in
    which no columns of that kind are."""
    where = repr(tables.path)
    with _told(where):
        file, mark = _open_parquet(open_file())
        schema = file.schema_arrow
        identity, image = columns.among(schema.names, where)
        held = _bytes_in(schema.field(image).type, image, where)
        wanted = [name for name in (identity, None if held else image) if name]
        number = 0
        for batch in file.iter_batches(_ROWS, columns=wanted or [image]):
            ids = batch.column(identity).to_pylist() if identity else None
            images = None if held else batch.column(image).to_pylist()
            for place in range(batch.num_rows):
                key = ids[place] if ids is not None else f"{tables.id}/{number}"
                path = images[place] if images is not None else f"parquet://{number}+{mark}@{tables.path}#{held}"
                yield entry_of(key, path, (identity or "id", image), f"{tables.path}, row {number}")
                number += 1


class Rows:
    """Images in rows, of the files that `open_file` opens by their paths. Safe for use by several threads."""

    def __init__(self, open_file: Callable[[str], BinaryIO]) -> None:
        self._open_file = open_file
        self._files: OrderedDict[tuple[str, str, str], _File] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, max_bytes: int) -> bytes:
        """The image in the row of this path. Raises FetchError, ImageTooLargeError."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise FetchError("bad_archive", "That is no path of an image in a Parquet file.")
        with self._lock:
            key = (found[2], found[3], found[4])
            file = self._files.setdefault(key, _File(*key, self._open_file))
            self._files.move_to_end(key)
            if len(self._files) > _OPEN:
                self._files.popitem(last=False)
        value = file.value(int(found[1]))
        if value is None:
            raise FetchError("empty_image", "The row has no image.")
        if len(value) > max_bytes:
            raise ImageTooLargeError(
                f"The image has {len(value):,} bytes; at most {max_bytes:,} are accepted.", limit=max_bytes
            )
        return value


class _File:
    """One column of images, from the stretch that was last asked for on."""

    def __init__(self, mark: str, path: str, column: str, open_file: Callable[[str], BinaryIO]) -> None:
        self._mark, self._path, self._column, self._open_file = mark, path, column, open_file
        self._file: parquet.ParquetFile | None = None
        self._ends: list[int] = []
        self._batches: Iterator[Any] = iter(())
        self._next = self._end = 0  # the next row that a stretch begins with, and the end of its row group
        self._kept: deque[tuple[int, Any]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def value(self, row: int) -> bytes | None:
        import pyarrow as pa

        with self._lock:
            try:
                return self._value(row)
            except (pa.ArrowException, OSError, IndexError, KeyError, StopIteration) as error:
                self._file, self._end = None, 0
                self._kept.clear()
                reason = str(error).split("\n")[0] or "the row is not there"
                raise FetchError("bad_archive", f"The Parquet file cannot be read: {reason}.") from None

    def _value(self, row: int) -> bytes | None:
        for start, values in self._kept:
            if start <= row < start + len(values):
                found: bytes | None = values[row - start].as_py()
                return found
        if not self._next <= row < self._end:
            self._begin(row)
        while True:
            batch = next(self._batches)
            values = batch.column(0)
            if "." in self._column:
                values = values.field(0)
            self._kept.append((self._next, values))
            self._next += len(values)
            if row < self._next:
                return self._value(row)

    def _begin(self, row: int) -> None:
        if self._file is None:
            self._file, mark = _open_parquet(self._open_file(self._path))
            if mark != self._mark:
                self._file = None
                raise FetchError("bad_archive", "The Parquet file has changed since it was listed: run the job again.")
            metadata = self._file.metadata
            self._ends = list(accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)))
        number = bisect_right(self._ends, row)
        group = self._file.metadata.row_group(number)
        leaf = next(
            column for column in map(group.column, range(group.num_columns)) if column.path_in_schema == self._column
        )
        rows = max(1, min(_ROWS, _STRETCH * group.num_rows // max(1, leaf.total_uncompressed_size)))
        self._batches = self._file.iter_batches(rows, row_groups=[number], columns=[self._column], use_threads=False)
        self._end = self._ends[number]
        self._next = self._end - group.num_rows


def _bytes_in(kind: Any, column: str, where: str) -> str | None:
    """The column with the bytes of images; None if it says where they lie."""
    import pyarrow as pa

    def is_bytes(one: Any) -> bool:
        return bool(pa.types.is_binary(one) or pa.types.is_large_binary(one))

    if is_bytes(kind):
        return column
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type):
        return f"{column}.bytes"  # as Hugging Face's datasets have it
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return None
    raise ConfigError(f"The column {column!r} of {where} is {kind}: it must be strings or bytes.")


def _open_parquet(file: BinaryIO) -> tuple[parquet.ParquetFile, str]:
    """The file, and a mark that one with other content has not: of its footer, where every page is listed."""
    from pyarrow import parquet

    opened = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    file.seek(-8 - opened.metadata.serialized_size, io.SEEK_END)
    return opened, f"{zlib.crc32(file.read(opened.metadata.serialized_size)):08x}"


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(f"Parquet needs pyarrow: {how_to_install('parquet')}") from None
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"Cannot read the Parquet file {where}: {str(error).splitlines()[0]}.") from None
    except FetchError as error:
        raise ConfigError(f"Cannot read the Parquet file {where}. {error.message}") from None
