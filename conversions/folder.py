"""The models folder on disk: one converter at a time, and a model that appears, or is replaced, in one step.

A model is written to .NAME.partial-PID beside its place (the server passes over such names) and moved in by one
rename. Whatever moment a converter dies at, NAME is the old folder, the new one, or absent. Knows nothing of ONNX.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from conversions.errors import ConversionError

LOCK_NAME = ".lock"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def locked(models_dir: Path, wait: float, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the only right to write below `models_dir`; waits up to `wait` seconds for another converter.

    The system frees the lock when its process dies. Leftovers of dead converters are cleared before entering.
    Raises ConversionError if the folder cannot be written, or the wait is over.
    """
    lock = FileLock(models_dir / LOCK_NAME)
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            say(f"Another conversion is writing to {models_dir}: waiting for it, at most {wait:.0f} s.")
            held = lock.acquire(timeout=wait, poll_interval=0.2)
    except Timeout:
        raise ConversionError(f"Another conversion is writing to {models_dir}. Wait for it, or raise --wait.") from None
    except OSError as error:
        raise ConversionError(f"Cannot write to {models_dir}: {error.strerror}. Choose another --models-dir.") from None
    with held:
        recover(models_dir)
        yield


def recover(models_dir: Path) -> None:
    """Clears what dead converters left. Call it with the lock held: then everything partial is dead."""
    for aside in models_dir.glob(".*.replaced-*"):
        place = models_dir / aside.name.removeprefix(".").rpartition(".replaced-")[0]
        if place.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(place)
    for partial in models_dir.glob(".*.partial-*"):
        shutil.rmtree(partial)


@contextmanager
def partial_folder(models_dir: Path, name: str) -> Iterator[Path]:
    """A fresh folder to write the model `name` into; gone at the end, whether it was published or not."""
    folder = models_dir / f".{name}.partial-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(partial: Path, place: Path) -> None:
    """Makes `place` the folder that `partial` is now, on disk and in one step. Needs the lock.

    Where the file system can exchange two names (Linux), a reader never sees `place` missing. Elsewhere an
    existing folder is first renamed aside; `recover` puts it back if the process dies between the two renames.
    """
    for path in (*partial.iterdir(), partial):
        _fsync(path)
    if not place.exists():
        partial.rename(place)
    elif _exchange(partial, place):
        # `partial` now names the old folder: partial_folder removes it.
        pass
    else:
        aside = place.with_name(f".{place.name}.replaced-{os.getpid()}")
        place.rename(aside)
        partial.rename(place)
        _fsync(place.parent)
        shutil.rmtree(aside)
    _fsync(place.parent)


def require_space(folder: Path, needed: int) -> None:
    """Raises ConversionError if the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConversionError(
            f"Not enough disk space in {folder}: about {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free."
        )


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names atomically; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _fsync(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
