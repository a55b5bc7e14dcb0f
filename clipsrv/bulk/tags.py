"""What a job that classifies makes of vectors: which labels each image has, by the model that made its vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clipsrv.bulk.records import Facts
from clipsrv.bulk.run import Product
from clipsrv.bulk.stores.outputs import Writer
from clipsrv.bulk.stores.tags import tag_writer_for
from clipsrv.errors import ConfigError, InvalidLabelsError, InvalidTextError, ModelError, TextTowerMissingError
from clipsrv.models.known import in_words
from clipsrv.models.model import Model
from clipsrv.models.scoring import Labels, LabelScore, ranked, scoring_of, similarities
from clipsrv.models.texts import embed_texts
from clipsrv.runtime.vectors import Vectors

#: Labels named in a warning.
_SHOWN = 3


@dataclass(frozen=True)
class Asked:
    """The labels, and the `top` of them that are wanted of each image, 0 for all. Raises ConfigError."""

    labels: tuple[str, ...]
    template: str
    top: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.top < 0:
            raise ConfigError("--top must be 0 or more.")
        try:
            Labels(self.labels, self.template)
        except InvalidLabelsError as error:
            raise ConfigError(f"{error.message} (--labels, --labels-file, --template)") from None


def product(asked: Asked, out: Path) -> Product:
    """The labels that were `asked` for, in the file `out`. Raises ConfigError for a format that is not known."""
    make = tag_writer_for(out)

    def writer(model: Model) -> Writer:
        prompts, scoring = _prompts(model, asked), scoring_of(model.manifest)

        def rate(vectors: Vectors) -> list[list[LabelScore]]:
            cosines = similarities(vectors, prompts)
            return [ranked(asked.labels, row, scoring, asked.top or None) for row in cosines]

        return make(rate)

    def facts(model: Model) -> Facts:
        wanted = {"labels": list(asked.labels), "template": asked.template, "top": asked.top}
        return {**wanted, "scoring": asdict(scoring_of(model.manifest))}

    return Product(writer, facts, "image", text=True, warning=lambda model: _warning(model, asked.labels))


def _warning(model: Model, labels: Sequence[str]) -> str | None:
    """What to say of labels that the model cannot read, as far as that is certain."""
    foreign = [f"{label[:40]!r}" for label in labels if model.is_foreign(label)]
    if not foreign:
        return None
    some = ", ".join(foreign[:_SHOWN]) + (", ..." if len(foreign) > _SHOWN else "")
    return (
        f"{model.manifest.name} knows {in_words(model.languages)}, and reads no letter of the labels {some}: their "
        "scores mean little. docs/models.md names models that know more languages."
    )


def _prompts(model: Model, asked: Asked) -> Vectors:
    """Vectors (labels, dimensions). Raises ConfigError for a label that cannot be read, ModelError, EngineError."""
    try:
        return embed_texts(model, Labels(asked.labels, asked.template).prompts, asked.batch_size).vectors
    except InvalidTextError as error:
        raise ConfigError(f"A label cannot be read. {error.message}") from None
    except TextTowerMissingError as error:
        raise ModelError(error.message) from None
