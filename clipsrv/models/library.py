"""The models that are served: which folder a name means, what lies there by now, and how it is opened.

Knows nothing of what is loaded. `refresh` and `load` are called from one thread, all else from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clipsrv.errors import ConfigError, ModelError, ModelNotOfferedError, ModelTooLargeError
from clipsrv.machine import free_memory
from clipsrv.manifest import MANIFEST_NAME, ModelManifest, load_manifest
from clipsrv.models.folders import find_model, model_folders
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings, OfferSettings
from clipsrv.text.opening import Tokenizers

#: Of a file: its device and inode, its size and when it was last written to. Of a model: of its manifest first, then of
#: each other file; None for one that is not there.
Stamp = tuple[int, int, int, int]
Version = tuple[Stamp | None, ...]
#: Names told to who asks for another.
_TOLD = 20


class Library:
    """Models of one folder, as they were at the last `refresh`."""

    def __init__(self, models_dir: Path, offer: OfferSettings, settings: ModelSettings) -> None:
        """Raises ModelNotFoundError if a model that is named, or meant by an alias, has no folder."""
        self._models_dir, self._offer, self._settings = models_dir, offer, settings
        for name in (*offer.named, *offer.aliases.values()):
            self.find(name)
        self._folders: dict[str, _Folder] = {}
        self._opened_one, self._tokenizers = False, Tokenizers()
        self.refresh()
        if offer.on_demand and (both := sorted(offer.aliases.keys() & self._folders.keys())):
            raise ConfigError(f"CLIPSRV_ALIAS (--alias): {both[0]} is a model itself, in {models_dir}.")

    @property
    def default(self) -> str:
        """The model meant where none is named."""
        return self._offer.named[0]

    @property
    def named(self) -> tuple[str, ...]:
        """Those to load at the start, the default first."""
        return self._offer.named

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._offer.aliases

    @property
    def manifests(self) -> Mapping[str, ModelManifest]:
        """Every valid model of the folder by name, served or not."""
        return {name: folder.manifest for name, folder in self._folders.items()}

    def find(self, name: str) -> Path:
        """The folder of a model. Raises ModelNotFoundError."""
        return find_model(self._models_dir, name)

    def names(self) -> list[str]:
        """All that are served, the default first."""
        others = (name for name in self._folders if name not in self.named) if self._offer.on_demand else ()
        return [*self.named, *others]

    def resolve(self, name: str) -> str:
        """The model that `name`, or an alias, means. Raises ModelNotOfferedError."""
        model = self.aliases.get(name, name)
        if model in self.named or (self._offer.on_demand and model in self._folders):
            return model
        raise not_offered(name, self.names())

    def refresh(self) -> None:
        """Looks what there is. Reads the manifests of folders that have changed, and of the others only when."""
        found: dict[str, _Folder] = {}
        for name, path in model_folders(self._models_dir).items():
            try:
                found[name] = _read(path, self._folders.get(name))
            except ModelError:
                continue
        self._folders = found

    def version(self, name: str) -> Version | None:
        """What is another as soon as any file of the model is; None if there is no such folder."""
        folder = self._folders.get(name)
        return folder.version if folder else None

    def is_written_over(self, name: str, version: Version) -> bool:
        """Whether a file that was there at `version` has itself been written to since, and not been exchanged: what
        runs may read its weights from it."""
        then, now = (_contents(one) for one in (version, self.version(name) or ()))
        return any(then[file] != now[file] for file in then.keys() & now.keys())

    def load(self, name: str) -> Model:
        """Opens a model. Raises StartError; ModelTooLargeError if it is not the first, and memory is too short."""

        def check(needed: int) -> None:
            if self._opened_one:
                check_memory(name, needed, free_memory())

        model = load_model(self.find(name), self._settings, check, self._tokenizers)
        self._opened_one = True
        return model


def check_memory(name: str, needed: int, free: int | None) -> None:
    """Raises ModelTooLargeError if `needed` bytes are more than are `free`, where that is known."""
    if free is not None and needed > free:
        raise ModelTooLargeError(
            f"Loading {name} takes about {needed >> 20:,} MiB, and {free >> 20:,} MiB are free. Have fewer models "
            "loaded at once (--max-loaded, --unload-after), or give the server more memory."
        )


def not_offered(name: str, names: list[str]) -> ModelNotOfferedError:
    """The error for a name that is no model's, telling those that are."""
    told = ", ".join(names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")
    return ModelNotOfferedError(f"No model {name[:64]!a} is served here; there are: {told}.")


class _Folder(NamedTuple):
    manifest: ModelManifest
    version: Version


def _contents(version: Version) -> dict[tuple[int, int], tuple[int, int]]:
    """Of each file but the manifest, which is read once: what it is, to what is in it."""
    return {stamp[:2]: stamp[2:] for stamp in version[1:] if stamp}


def _read(path: Path, known: _Folder | None) -> _Folder:
    stamp = _stamp(path / MANIFEST_NAME)
    manifest = known.manifest if known and stamp and known.version[0] == stamp else load_manifest(path)
    return _Folder(manifest, (stamp, *(_stamp(path / name) for name in sorted(manifest.files))))


def _stamp(path: Path) -> Stamp | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
