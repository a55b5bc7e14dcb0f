"""The four models by name: where their checkpoints lie, at which revision, and what their weights hash to.

Pure facts. Adding a name here is a convenience; any other CLIP checkpoint converts with --checkpoint and --name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubCheckpoint:
    """A repository of the Hugging Face Hub at one commit (or branch). `weights_sha256` None: not known beforehand."""

    repo: str
    revision: str
    weights_sha256: str | None = None
    license: str = "see the model card"


#: OpenAI's repositories declare no licence on the Hub; their code and model card are MIT's.
_LICENSE = "MIT (openai/CLIP)"

KNOWN = {
    "vit-b-32": HubCheckpoint(
        repo="openai/clip-vit-base-patch32",
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        weights_sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        license=_LICENSE,
    ),
    "vit-b-16": HubCheckpoint(
        repo="openai/clip-vit-base-patch16",
        revision="57c216476eefef5ab752ec549e440a49ae4ae5f3",
        weights_sha256="ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0",
        license=_LICENSE,
    ),
    "vit-l-14": HubCheckpoint(
        repo="openai/clip-vit-large-patch14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        weights_sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        license=_LICENSE,
    ),
    "vit-l-14-336": HubCheckpoint(
        repo="openai/clip-vit-large-patch14-336",
        revision="ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
        weights_sha256="c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
        license=_LICENSE,
    ),
}
