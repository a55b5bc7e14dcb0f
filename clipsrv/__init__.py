"""clipsrv: CLIP embeddings on your own machine. `clipsrv.load` opens a model in this process (docs/python.md)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipsrv.embedding_model import EmbeddingModel, load

__all__ = ["EmbeddingModel", "__version__", "load"]

__version__ = "0.1.0"

# onnxruntime's official builds report their use to their maker, on Linux too, unless told not to before they are
# loaded (its docs/Privacy.md). What runs here is nobody else's business.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> object:
    """What needs numpy, Pillow and onnxruntime is brought in when it is asked for, and not with every command."""
    if name not in {"EmbeddingModel", "load"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clipsrv import embedding_model

    return getattr(embedding_model, name)
