"""Models out of a function in the place of folders, so that a test need not write and open any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipsrv.models.library import Library
from clipsrv.models.model import Model
from clipsrv.settings import ModelSettings, OfferSettings
from tests.support.model import NAME


class Given(Library):
    """Serves `named` from the start and `others` when they are asked for; `load` makes each by its name. A model has
    changed when its entry in `versions` has."""

    def __init__(
        self,
        load: Callable[[str], Model],
        named: Sequence[str] = (NAME,),
        others: Sequence[str] = (),
        models_dir: Path = Path("nowhere"),
    ) -> None:
        super().__init__(models_dir, OfferSettings(tuple(named)), ModelSettings())
        self.others, self.versions, self.written_over = list(others), dict[str, object](), set[str]()
        self._make = load

    def find(self, name: str) -> Path:
        return Path("nowhere")

    def names(self) -> list[str]:
        return [*self.named, *self.others]

    def resolve(self, name: str) -> str:
        return name if name in self.others else super().resolve(name)

    def version(self, name: str) -> Any:
        return self.versions.get(name)

    def is_written_over(self, name: str, version: Any) -> bool:
        return name in self.written_over

    def load(self, name: str) -> Model:
        return self._make(name)
