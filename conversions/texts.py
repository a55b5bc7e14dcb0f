"""Which texts int8 computes: those of folders made from now on, unless they would be too far off or are to be exact.

A folder whose int8 left texts in fp32 keeps to that, and with it the id of its vectors (docs/precision.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipsrv.manifest import TEXT, VISION, ModelManifest

TOWERS = (VISION, TEXT)
INT8 = "int8"
#: What is written for images only, whatever was asked for.
_IMAGES_ONLY = ("int8-openvino",)


def towers_of(precision: str, *, exact_texts: bool) -> Sequence[str]:
    """The towers of which a precision has a graph."""
    return (VISION,) if precision in _IMAGES_ONLY or (exact_texts and precision == INT8) else TOWERS


def are_exact(manifest: ModelManifest) -> bool:
    """Whether images may be computed in int8 there, and texts may not."""
    vision, text = manifest.towers[VISION], manifest.towers.get(TEXT)
    return INT8 in vision.variants and text is not None and INT8 not in text.variants


def leave_out(manifest: ModelManifest, folder: Path) -> ModelManifest:
    """`manifest` without int8 texts, whose graph is removed from `folder`."""
    text = manifest.towers[TEXT]
    graph = text.variants[INT8]
    gone = {graph, f"{graph}.data"}
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    less = replace(text, variants={name: file for name, file in text.variants.items() if name != INT8})
    return replace(
        manifest,
        towers={**manifest.towers, TEXT: less},
        files={name: spec for name, spec in manifest.files.items() if name not in gone},
    )
