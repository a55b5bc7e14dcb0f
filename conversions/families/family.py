"""What the converter needs of a family of models: facts read without PyTorch, and the original, which runs in it.

Imports neither torch nor transformers: a family does so where its original is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipsrv.specs import PreprocessSpec, ScoringSpec, TokenSpec

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

Identity = dict[str, str | int | float]

#: The precision whose graph is fused.
FUSED = "fp16"


@dataclass(frozen=True)
class Facts:
    """`image_size` in pixels is what the image tower takes, `dimensions` the length of a vector, `context_length` the
    tokens of a text."""

    preprocess: PreprocessSpec
    image_size: int
    dimensions: int
    context_length: int
    tokens: TokenSpec


@dataclass(frozen=True)
class Exportable:
    """One tower as it is exported: `module` takes the tower's input and gives features (n, dimensions).

    `through` names what exports it: "optimum", or "torch" where Optimum knows no such module. `heads` and `width` are
    what fusions must know. `taken` is the place of the token at which the vector is taken, None if it is of all.
    `fusible` is the same tower in the form that fusions know, where `module` has another. One that is `packed` takes
    texts as clipsrv/runtime/packing.py makes them ready, and is exported through "torch".
    """

    module: torch.nn.Module
    heads: int
    width: int
    through: str = "optimum"
    taken: int | None = None
    packed: bool = False
    fusible: torch.nn.Module | None = None


class Original(Protocol):
    """The checkpoint in PyTorch, with its own processors: what a conversion is measured against."""

    @property
    def scoring(self) -> ScoringSpec: ...

    def identity(self, tokenizer: bytes) -> Identity:
        """The manifest's `identity`; `tokenizer` is the content of the tokenizer's file that is served."""

    def crops(self, images: Sequence[Image.Image]) -> NDArray[Any]:
        """uint8 (n, 3, S, S), of RGB images."""

    def pixels(self, crops: NDArray[Any]) -> torch.Tensor:
        """float32 (n, 3, S, S): the crops rescaled and normalised."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the text tower must be given of each text: with padding only where the model reads it."""

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, dimensions), of any length."""

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, dimensions), of any length."""

    def tower(self, name: str) -> Exportable:
        """Changes the model: its features are not to be asked for afterwards."""


class Family(Protocol):
    name: str

    def facts(self, folder: Path, config: Mapping[str, Any]) -> Facts:
        """Raises CheckpointError if `folder`, whose config.json is `config`, asks for what clipsrv does not do."""

    def load(self, folder: Path, facts: Facts, *, safetensors: bool) -> Original:
        """Raises CheckpointError if the weights cannot be read, or do not fill every parameter."""

    def tokenizer(self, folder: Path, facts: Facts) -> tuple[str, bytes]:
        """Name and content of the tokenizer's file that is served. Raises CheckpointError."""
