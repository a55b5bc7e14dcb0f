"""What every section is told, and what it gives: rows. Standard library only, so that any Python can begin."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: One line of a section's table: facts by their names.
Row = dict[str, object]

CHECKPOINTS, MODELS, IMAGES = "checkpoints", "models", "images"


@dataclass(frozen=True)
class Setting:
    """`work` holds checkpoints, converted models and encoded images; `models` are geometries of
    scripts/make-random-checkpoint, the first of which is measured everywhere. A point is measured for `seconds`, over
    `batches`, `callers` and, of the CPU, numbers of `cores`; vectors are compared of so many `golden` images."""

    work: str
    device: str = "cuda"
    models: Sequence[str] = ("vit-b-32",)
    seconds: float = 0.3
    batches: Sequence[int] = (1, 4, 8, 16, 64, 256)
    callers: Sequence[int] = (1, 8, 64)
    cores: Sequence[int] = field(default_factory=lambda: cores_to_try(len(os.sched_getaffinity(0))))
    golden: int = 89

    def checkpoint(self, model: str) -> Path:
        return Path(self.work, CHECKPOINTS, model)

    @property
    def on_cpu(self) -> str:
        """The name of the first model as it is converted for the rows of the CPU."""
        return f"{self.models[0]}-on-cpu"

    @property
    def models_dir(self) -> Path:
        return Path(self.work, MODELS)

    @property
    def images_dir(self) -> Path:
        return Path(self.work, IMAGES)

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "fp16") if self.device == "cuda" else ("fp32",)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setting:
        return cls(**json.loads(text))


def cores_to_try(there: int) -> list[int]:
    """2, 4, 8, 16 as far as they are there; all there are if these are fewer than two."""
    return [cores for cores in (2, 4, 8, 16) if cores <= there] or [there]
