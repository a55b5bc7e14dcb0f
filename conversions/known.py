"""The models that the converter knows by name, as checkpoints of the Hub. What is known of them: clipsrv.models."""

from __future__ import annotations

from dataclasses import dataclass

from clipsrv.models.known import KNOWN as MODELS
from clipsrv.models.known import in_words


@dataclass(frozen=True)
class HubCheckpoint:
    """A repository of the Hugging Face Hub at one commit (or branch). `weights_sha256` None: not known beforehand.
    `purpose` says what the model is for and which languages its texts may be in."""

    repo: str
    revision: str
    weights_sha256: str | None = None
    license: str = "see the model card"
    purpose: str = ""


KNOWN = {
    name: HubCheckpoint(
        known.repo,
        known.revision,
        known.weights_sha256,
        known.license,
        f"{in_words(known.languages)}; {known.purpose}",
    )
    for name, known in MODELS.items()
}
