"""Which columns of a table, or keys of an object, name an image and hold it or say where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipsrv.bulk.records import BadFile, Entry, bad_file
from clipsrv.errors import ConfigError

_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """The names asked for; without one it is id, and path or the only column beside the id."""

    id: str | None = None
    image: str | None = None

    def among(self, names: Sequence[str], where: str) -> tuple[str | None, str]:
        """The two columns of a table; of the id None if none is asked for and none is called so. Raises ConfigError."""
        identity = self.id or ("id" if "id" in names else None)
        others = [name for name in names if name != identity]
        image = self.image or ("path" if "path" in names else others[0] if len(others) == 1 else None)
        for option, name in (("--id-column", identity), ("--image-column", image)):
            if name is not None and name not in names:
                raise ConfigError(f"{where} has no column {name!r} ({option}); it has {_shown(names)}.")
        if image is None:
            raise ConfigError(f"Which column of {where} has the images? Give --image-column: {_shown(names)}.")
        return identity, image


def entry_of(identity: object, image: object, columns: tuple[str, str], where: str) -> Entry | BadFile:
    """The entry of a row whose `image` says where it lies, or what is wrong with it; `where` is the row."""
    text = identity_of(identity)
    if text is None:
        return _bad_entry("", where, f"{columns[0]} must be a string that is not empty, or a whole number")
    if not isinstance(image, str) or not image:
        return _bad_entry(text, where, f"{columns[1]} must be a string that is not empty")
    return Entry(text, image)


def identity_of(value: object) -> str | None:
    """An id as text. A whole number may be written 42.0, as some exports do."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _bad_entry(identity: str, where: str, message: str) -> BadFile:
    return bad_file(Entry(identity, where), "bad_entry", message)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "") or "none"
