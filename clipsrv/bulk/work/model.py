"""The model of a job on its way to other machines: a copy in the work folder, checked by its checksums on each.

WORK/model/DIGEST/   the files of a model folder; DIGEST is the sha256 of its manifest, which has those of the others
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path

from clipsrv.bulk.errors import OutputError
from clipsrv.bulk.work.folder import Folder
from clipsrv.errors import ModelError
from clipsrv.manifest import MANIFEST_NAME, load_manifest, verify_files
from clipsrv.models.folders import find_model


def publish_model(model: Path, work: Folder) -> str:
    """Puts a copy of a model folder into `work`, if there is none, and gives its digest. Raises ModelError or
    OutputError."""
    manifest = load_manifest(model)
    verify_files(model, manifest)
    digest = _digest(model)
    there = work.names(f"model/{digest}")
    for name in (*manifest.files, MANIFEST_NAME):
        if name not in there:
            with work.draft(f"model/{digest}/{name}") as draft, (model / name).open("rb") as file:
                shutil.copyfileobj(file, draft.file, 2**20)
                draft.publish()
    return digest


def fetch_model(models_dir: Path, name: str, work: Folder, digest: str) -> Path:
    """A folder of models on this machine in which `name` is the model of `digest`: `models_dir`, if it is there, or one
    in the folder for temporary files, into which it is copied from `work` once. What is damaged counts as not there.
    Raises ModelError or OutputError."""
    try:
        if _is_whole(find_model(models_dir, name), digest):
            return models_dir
    except ModelError:
        pass  # none of this name: the job's own is taken
    models = Path(tempfile.gettempdir(), f"clipsrv-models-{os.getuid() if hasattr(os, 'getuid') else 0}", digest)
    if not _is_whole(models / name, digest):
        try:
            if (models / name).exists():
                (models / name).rename(models / f"{name}.damaged-{uuid.uuid4().hex[:8]}")
            models.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"Cannot keep the model in {models}: {error.strerror}.") from None
        with tempfile.TemporaryDirectory(dir=models) as fetched:
            copy = Path(fetched, name)
            copy.mkdir()
            _copy(work, f"model/{digest}", MANIFEST_NAME, copy)
            if _digest(copy) != digest:
                raise ModelError(f"The model in {work.url}/model/{digest} is damaged: its manifest is another.")
            manifest = load_manifest(copy)
            for file in manifest.files:
                _copy(work, f"model/{digest}", file, copy)
            verify_files(copy, manifest)
            try:
                copy.rename(models / name)
            except OSError:
                if not _is_whole(models / name, digest):  # unless another process of this machine was first
                    raise
    return models


def _is_whole(model: Path, digest: str) -> bool:
    try:
        if _digest(model) != digest:
            return False
        verify_files(model, load_manifest(model))
    except (ModelError, OSError):
        return False
    return True


def _copy(work: Folder, folder: str, name: str, to: Path) -> None:
    try:
        with work.open(f"{folder}/{name}") as source, (to / name).open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
    except OSError as error:
        raise OutputError(f"Cannot copy {work.url}/{folder}/{name} to {to}: {error.strerror or error}.") from None


def _digest(model: Path) -> str:
    return hashlib.sha256((model / MANIFEST_NAME).read_bytes()).hexdigest()
