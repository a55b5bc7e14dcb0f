"""Models by name: where their checkpoints lie, what each is for, and of the guide's four the revision and hash.

Pure facts. Adding a name here is a convenience; any other checkpoint of a known family converts with --checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubCheckpoint:
    """A repository of the Hugging Face Hub at one commit (or branch). `weights_sha256` None: not known beforehand.
    `purpose` says what the model is for and which languages its texts may be in."""

    repo: str
    revision: str
    weights_sha256: str | None = None
    license: str = "see the model card"
    purpose: str = ""


#: OpenAI's repositories declare no licence on the Hub; their code and model card are MIT's.
_LICENSE = "MIT (openai/CLIP)"


def _newest(repo: str, license: str, purpose: str) -> HubCheckpoint:
    """A repository whose commit is not pinned: what its main branch names at the time."""
    return HubCheckpoint(repo, "main", license=license, purpose=purpose)


KNOWN = {
    "vit-b-32": HubCheckpoint(
        repo="openai/clip-vit-base-patch32",
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        weights_sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        license=_LICENSE,
        purpose="English; fastest of OpenAI's",
    ),
    "vit-b-16": HubCheckpoint(
        repo="openai/clip-vit-base-patch16",
        revision="57c216476eefef5ab752ec549e440a49ae4ae5f3",
        weights_sha256="ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0",
        license=_LICENSE,
        purpose="English; between fast and good",
    ),
    "vit-l-14": HubCheckpoint(
        repo="openai/clip-vit-large-patch14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        weights_sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        license=_LICENSE,
        purpose="English; good",
    ),
    "vit-l-14-336": HubCheckpoint(
        repo="openai/clip-vit-large-patch14-336",
        revision="ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
        weights_sha256="c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
        license=_LICENSE,
        purpose="English; the best of OpenAI's, slow",
    ),
    "laion-b-32": _newest(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "MIT", "English; finds more than vit-b-32 at its speed"
    ),
    "laion-b-16": _newest("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "MIT", "English; as vit-b-16, finds more"),
    "laion-l-14": _newest("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "MIT", "English; as vit-l-14, finds more"),
    "laion-h-14": _newest("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "MIT", "English; large, for a GPU"),
    "datacomp-b-32": _newest(
        "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "MIT", "English; filtered training data, as fast as vit-b-32"
    ),
    "datacomp-b-16": _newest("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "MIT", "English; filtered training data"),
    "datacomp-l-14": _newest("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "MIT", "English; filtered training data"),
    "dfn-b-16": _newest("apple/DFN2B-CLIP-ViT-B-16", "see the model card (Apple)", "English; strong for its size"),
    "dfn-l-14": _newest("apple/DFN2B-CLIP-ViT-L-14", "see the model card (Apple)", "English; strong for its size"),
    "fashion-clip": _newest("patrickjohncyh/fashion-clip", "MIT", "English; clothes, as fast as vit-b-32"),
    "marqo-fashion": _newest("Marqo/marqo-fashionSigLIP", "Apache-2.0", "English; clothes, more than fashion-clip"),
    "marqo-shop-b": _newest("Marqo/marqo-ecommerce-embeddings-B", "Apache-2.0", "English; goods of every kind"),
    "xlm-roberta-b-32": _newest(
        "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
        "MIT",
        "100 languages, strong in Japanese, images as fast as vit-b-32",
    ),
    "metaclip2-b-32": _newest(
        "facebook/metaclip-2-worldwide-b32", "see the model card", "300 languages; as fast as vit-b-32"
    ),
    "chinese-clip-b-16": _newest("OFA-Sys/chinese-clip-vit-base-patch16", "see the model card", "Chinese"),
    "siglip2-b-16-256": _newest(
        "google/siglip2-base-patch16-256", "Apache-2.0", "100 languages, Japanese among them; good on a CPU"
    ),
    "siglip2-b-32-256": _newest("google/siglip2-base-patch32-256", "Apache-2.0", "100 languages; as fast as vit-b-32"),
    "siglip2-so400m-14-384": _newest(
        "google/siglip2-so400m-patch14-384", "Apache-2.0", "100 languages; the best here, for a GPU"
    ),
    "waon-siglip2-b-16-256": _newest(
        "llm-jp/waon-siglip2-base-patch16-256", "see the model card", "Japanese first; a SigLIP 2 trained further"
    ),
}
