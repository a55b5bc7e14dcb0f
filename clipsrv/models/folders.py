"""Where model folders lie, and which of them a name means."""

from __future__ import annotations

from pathlib import Path

from clipsrv.errors import ModelNotFoundError
from clipsrv.manifest import NAME, list_models

#: The guide's names, which `python -m conversions NAME` makes.
KNOWN_MODELS = ("vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336")

#: Models inside the installed package; in a checkout they lie in onnx_models/.
BUNDLED = Path(__file__).parent


def find_model(models_dir: Path, name: str) -> Path:
    """The folder of a model by name, in `models_dir` or among those bundled with an installed clipsrv.

    Raises ModelNotFoundError with the command that makes it.
    """
    for folder in (models_dir / name, BUNDLED / name):
        if NAME.fullmatch(name) and folder.is_dir():
            return folder
    there = ", ".join(list_models(models_dir)) or "none"
    cure = f"Make it with: python -m conversions {name}" if name in KNOWN_MODELS else "See python -m conversions --list"
    raise ModelNotFoundError(f"No model {name[:64]!r} in {models_dir} (there: {there}). {cure}")
