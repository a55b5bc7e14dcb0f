"""A folder on this machine or in an object store, by fsspec: files that are there whole or not at all.

Knows nothing of what is in them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from clipsrv.bulk.errors import OutputError
from clipsrv.errors import ConfigError
from clipsrv.installation import how_to_install


class Folder:
    """The folder of a path or a URL. Every method raises OutputError for what the store refuses; `/` divides names."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that nothing here can read."""
        try:
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem
        except ImportError:
            raise ConfigError(f"Shards need fsspec and pyarrow: {how_to_install('shards')}") from None
        self.url = url
        try:
            # What is listed must be what is there now: other drivers write to the same folder.
            self._store, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"Cannot use {url!r}: {error}.") from None
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self._store, LocalFileSystem)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine alone, as far as its name tells."""
        return self._is_local

    def read(self, name: str) -> bytes | None:
        """What is in a file; None if it is not there."""
        with self.reporting(name):
            try:
                content: bytes = self._store.cat_file(self._at(name))
            except FileNotFoundError:
                return None
        return content

    def open(self, name: str) -> IO[bytes]:
        """A file to read at any place."""
        with self.reporting(name):
            file: IO[bytes] = self._store.open(self._at(name), "rb")
        return file

    def names(self, folder: str) -> set[str]:
        """The names in a folder of it; none if there is no such folder."""
        with self.reporting(folder):
            try:
                found = self._store.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return set()
        return {str(path).rstrip("/").rpartition("/")[2] for path in found} - {""}

    def write(self, name: str, content: bytes) -> None:
        """Puts a file in place of what was there, whoever else does so at the same moment."""
        if self._is_local:
            with closing(Draft(self, name)) as draft:
                draft.file.write(content)
                draft.publish()
        else:
            with self.reporting(name):
                self._store.pipe_file(self._at(name), content)  # in one request, and so whole or not at all

    def create(self, name: str, content: bytes) -> bool:
        """Makes a file; False, and nothing is changed, if there is one already."""
        with self.reporting(name):
            try:
                if self._is_local:
                    self._link(Path(self._at(name)), content)
                else:
                    self._store.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Takes a file away, if it is there."""
        with self.reporting(name), suppress(FileNotFoundError):
            self._store.rm_file(self._at(name))

    @contextmanager
    def draft(self, name: str) -> Iterator[Draft]:
        """A file that is written under a name of its own and appears as `name` once it is published; or is gone.

        Takes away what a killed process left of the same file, so nobody else may be at work on it.
        """
        parent, _, last = name.rpartition("/")
        for left in self.names(parent):
            if left.startswith(f"_{last}.") and left.endswith(".tmp"):
                self.remove(f"{parent}/{left}" if parent else left)
        with closing(Draft(self, name)) as draft:
            yield draft

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _link(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_temporary(path.name))
        try:
            temporary.write_bytes(content)
            os.link(temporary, path)  # unlike a file that is opened, whole from the first moment
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def reporting(self, name: str) -> Iterator[None]:
        """Turns what a store refuses into OutputError about a file in the folder."""
        try:
            yield
        except OutputError:
            raise
        except Exception as error:  # noqa: BLE001 - each store has a library of its own, and that its own errors
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise OutputError(f"Cannot use {self.url}/{name}: {reason.splitlines()[0]}.") from None


class Draft:
    """A file in the making: `file` takes its bytes."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._published = folder, name, False
        parent, _, last = name.rpartition("/")
        self._temporary = f"{parent}/{_temporary(last)}" if parent else _temporary(last)
        with folder.reporting(name):
            if folder._is_local:
                Path(folder._at(name)).parent.mkdir(parents=True, exist_ok=True)
            self.file: IO[Any] = folder._store.open(folder._at(self._temporary), "wb")

    def publish(self) -> None:
        """Makes it the file of its name, in place of one that was there. It is on the disk then."""
        folder = self._folder
        source, target = folder._at(self._temporary), folder._at(self._name)
        with folder.reporting(self._name):
            if folder._is_local:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                os.replace(source, target)
                _sync(Path(target).parent)
            else:
                self.file.close()
                folder._store.mv(source, target)
        self._published = True

    def close(self) -> None:
        """Forgets it, if it was not published."""
        if not self._published:
            if not self._folder.is_local and hasattr(self.file, "discard"):
                with suppress(Exception):  # whatever ended it is what is to be told
                    self.file.discard()  # what was sent in parts is never made a file
            with suppress(Exception):
                self.file.close()
            with suppress(OutputError):
                self._folder.remove(self._temporary)


def _temporary(name: str) -> str:
    """Readers of a folder of Parquet files pass over names that begin so."""
    return f"_{name}.{uuid.uuid4().hex[:12]}.tmp"


def _sync(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # a new name is on the disk only when its folder is
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
