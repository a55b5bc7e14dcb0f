"""Where model folders lie, and which of them a name means."""

from __future__ import annotations

from pathlib import Path

from clipsrv.errors import ModelNotFoundError
from clipsrv.manifest import NAME, ModelManifest, list_models
from clipsrv.models.known import KNOWN

#: The guide's names, which `python -m conversions NAME` makes.
KNOWN_MODELS = ("vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336")

#: The model that comes with clipsrv: inside an installed package, or in the folder of models of a checkout.
BUNDLED = "demo"
_INSTALLED, _CHECKOUT = Path(__file__).parent, Path(__file__).parents[2] / "onnx_models"


def available_models(models_dir: Path) -> dict[str, ModelManifest]:
    """Every valid model of `models_dir` by name, and the one that comes with clipsrv."""
    bundled = list_models(_beside())
    return {name: bundled[name] for name in bundled if name == BUNDLED} | list_models(models_dir)


def model_folders(models_dir: Path) -> dict[str, Path]:
    """The folders of `models_dir` that could be models, by name, and that of the model that comes with clipsrv."""
    found: dict[str, Path] = {}
    for folder in (_beside() / BUNDLED, *_listed(models_dir)):
        if NAME.fullmatch(folder.name):
            found[folder.name] = folder
    return found


def find_model(models_dir: Path, name: str) -> Path:
    """The folder of a model by name, in `models_dir` or the one that comes with clipsrv.

    Raises ModelNotFoundError with the command that makes it.
    """
    for folder in (models_dir, _beside()) if name == BUNDLED else (models_dir,):
        if NAME.fullmatch(name) and (folder / name).is_dir():
            return folder / name
    there = ", ".join(list_models(models_dir)) or "none"
    cure = f"Make it with: python -m conversions {name}" if name in KNOWN else "See python -m conversions --list"
    raise ModelNotFoundError(f"No model {name[:64]!r} in {models_dir} (there: {there}). {cure}")


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _beside() -> Path:
    """The folder that holds the model that comes with clipsrv."""
    return _INSTALLED if (_INSTALLED / BUNDLED).is_dir() else _CHECKOUT
