"""What serving asks of the models there are. Knows of no folder: clipsrv.models.library has them on disk."""

from __future__ import annotations

from typing import Any, Protocol

from clipsrv.models.model import Model


class Offer(Protocol):
    @property
    def named(self) -> tuple[str, ...]:
        """Models to load at the start; the first is meant where none is named."""

    def names(self) -> list[str]:
        """All that are served now."""

    def resolve(self, name: str) -> str:
        """The model that a name means. Raises ModelNotOfferedError."""

    def refresh(self) -> None:
        """Looks what there is; called from a thread, as `load` is, never both at once."""

    def version(self, name: str) -> Any:
        """What is another once the model is, as of the last refresh; None if it is gone."""

    def is_written_over(self, name: str, version: Any) -> bool:
        """Whether what was loaded at `version` may be spoilt by what has become of its files."""

    def load(self, name: str) -> Model:
        """Raises StartError."""
