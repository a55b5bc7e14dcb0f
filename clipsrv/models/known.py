"""Models by name: where their checkpoints lie, which languages they know, what each is for, how well it finds.

Pure facts; the converter, the server, doctor and docs/models.md read them here. A name is a convenience: any other
checkpoint of a family that is converted will do.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipsrv.manifest import ModelManifest
from clipsrv.models.shapes import SHAPES, fits

#: Languages of a model that knows a hundred or more.
MANY = ("many",)
ENGLISH, JAPANESE, CHINESE = ("en",), ("ja",), ("zh",)


@dataclass(frozen=True)
class Found:
    """Recall of text to image on Crossmodal-3600, captions in English and Japanese: the mean of recall at 1, 5 and 10
    in percent. None where nobody has published it. Sources: open_clip's table of results in many languages; of SigLIP 2
    Immich's page on searching."""

    english: float | None = None
    japanese: float | None = None


@dataclass(frozen=True)
class KnownModel:
    """A checkpoint of the Hugging Face Hub and what is known of it.

    `weights_sha256` and a commit as `revision` where they are pinned. `shape` names what decides speed and memory:
    the same for all models of that architecture. `purpose` is a few words; languages are not repeated there. `extra` is
    what must be installed of clipsrv for its texts.
    """

    repo: str
    shape: str
    languages: tuple[str, ...]
    purpose: str
    license: str
    found: Found = Found()
    extra: str = ""
    revision: str = "main"
    weights_sha256: str | None = None


#: OpenAI's repositories declare no licence on the Hub; their code and model card are MIT's.
_OPENAI = "MIT (openai/CLIP)"
_CARD = "see the model card"
#: Its name on the Hub: apple-amlr.
_APPLE = "research only (Apple)"

KNOWN: dict[str, KnownModel] = {
    "vit-b-32": KnownModel(
        "openai/clip-vit-base-patch32",
        "b-32",
        ENGLISH,
        "fastest of OpenAI's",
        _OPENAI,
        Found(59.4, 4.8),
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        weights_sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    ),
    "vit-b-16": KnownModel(
        "openai/clip-vit-base-patch16",
        "b-16",
        ENGLISH,
        "between fast and good",
        _OPENAI,
        Found(59.9, 5.4),
        revision="57c216476eefef5ab752ec549e440a49ae4ae5f3",
        weights_sha256="ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0",
    ),
    "vit-l-14": KnownModel(
        "openai/clip-vit-large-patch14",
        "l-14",
        ENGLISH,
        "good",
        _OPENAI,
        Found(59.8, 7.0),
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        weights_sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    ),
    "vit-l-14-336": KnownModel(
        "openai/clip-vit-large-patch14-336",
        "l-14-336",
        ENGLISH,
        "the best of OpenAI's, slow",
        _OPENAI,
        Found(59.6, 7.2),
        revision="ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
        weights_sha256="c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
    ),
    "laion-b-32": KnownModel(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "b-32",
        ENGLISH,
        "finds more than vit-b-32 at its speed",
        "MIT",
        Found(68.8, 4.8),
    ),
    "laion-b-16": KnownModel(
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "b-16", ENGLISH, "as vit-b-16, finds more", "MIT", Found(69.3, 4.6)
    ),
    "laion-l-14": KnownModel(
        "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "l-14", ENGLISH, "as vit-l-14, finds more", "MIT", Found(69.8, 5.6)
    ),
    "laion-h-14": KnownModel(
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "h-14", ENGLISH, "large, for a GPU", "MIT", Found(71.3, 7.5)
    ),
    "datacomp-b-32": KnownModel(
        "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "b-32",
        ENGLISH,
        "filtered training data, as fast as vit-b-32",
        "MIT",
        Found(66.5, 3.8),
    ),
    "datacomp-b-16": KnownModel(
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "b-16", ENGLISH, "filtered training data", "MIT", Found(67.0, 4.9)
    ),
    "datacomp-l-14": KnownModel(
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "l-14", ENGLISH, "filtered training data", "MIT", Found(69.0, 4.6)
    ),
    "dfn-l-14": KnownModel(
        "apple/DFN2B-CLIP-ViT-L-14", "l-14", ENGLISH, "strong for its size", _APPLE, Found(72.8, 8.7)
    ),
    "fashion-clip": KnownModel("patrickjohncyh/fashion-clip", "b-32", ENGLISH, "clothes, as fast as vit-b-32", "MIT"),
    "marqo-fashion": KnownModel(
        "Marqo/marqo-fashionSigLIP",
        "siglip-b-16-224",
        ENGLISH,
        "clothes, finds more than fashion-clip",
        "Apache-2.0",
        extra="open_clip",
    ),
    "marqo-shop-b": KnownModel(
        "Marqo/marqo-ecommerce-embeddings-B",
        "siglip-b-16-224",
        ENGLISH,
        "goods of every kind",
        "Apache-2.0",
        extra="open_clip",
    ),
    "xlm-roberta-b-32": KnownModel(
        "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
        "xlm-roberta-b-32",
        MANY,
        "strong in Japanese, images as fast as vit-b-32",
        "MIT",
        Found(68.3, 81.2),
        extra="open_clip",
    ),
    "metaclip2-b-32": KnownModel(
        "facebook/metaclip-2-worldwide-b32", "metaclip2-b-32", MANY, "as fast as vit-b-32", _CARD
    ),
    "chinese-clip-b-16": KnownModel(
        "OFA-Sys/chinese-clip-vit-base-patch16", "chinese-clip-b-16", CHINESE, "of the size of vit-b-16", _CARD
    ),
    "siglip2-b-16-256": KnownModel(
        "google/siglip2-base-patch16-256",
        "siglip2-b-16-256",
        MANY,
        "good on a CPU",
        "Apache-2.0",
        # Of the same model at 224 pixels.
        Found(75.2, 58.1),
    ),
    "siglip2-b-32-256": KnownModel(
        "google/siglip2-base-patch32-256",
        "siglip2-b-32-256",
        MANY,
        "three quarters of the speed of vit-b-32",
        "Apache-2.0",
        Found(73.2, 55.3),
    ),
    "siglip2-so400m-14-384": KnownModel(
        "google/siglip2-so400m-patch14-384",
        "siglip2-so400m-14-384",
        MANY,
        "large, for a GPU",
        "Apache-2.0",
        Found(74.9, 68.6),
    ),
    "waon-siglip2-b-16-256": KnownModel(
        "llm-jp/waon-siglip2-base-patch16-256",
        "siglip2-b-16-256",
        MANY,
        "Japanese first; a SigLIP 2 trained further",
        _CARD,
    ),
}

#: What a model is chosen for, and which to take: the first that the machine is up to.
CHOICES = {
    "Japanese": ("waon-siglip2-b-16-256", "xlm-roberta-b-32"),
    "fashion": ("marqo-fashion", "fashion-clip"),
    "speed": ("laion-b-32", "xlm-roberta-b-32"),
    "quality": ("siglip2-so400m-14-384", "siglip2-b-16-256", "siglip2-b-32-256"),
    "licence": ("siglip2-b-32-256", "laion-b-32"),
}
_BY_REPO = {known.repo: known for known in KNOWN.values()}


def languages_of(manifest: ModelManifest) -> tuple[str, ...]:
    """The languages a converted model knows: as its manifest says, else by the repository it came from; () if neither
    is known."""
    if told := manifest.source.get("languages"):
        return tuple(told.replace(",", " ").split())
    known = _BY_REPO.get(manifest.source.get("repo", ""))
    return known.languages if known else ()


def suited(need: str, memory: int, *, on_cpu: bool) -> str | None:
    """The model of CHOICES for `need` that a machine with `memory` bytes can convert and serve well, if any."""
    return next((name for name in CHOICES[need] if fits(SHAPES[KNOWN[name].shape], memory, on_cpu=on_cpu)), None)


def in_words(languages: tuple[str, ...]) -> str:
    """The languages for a log line or a table."""
    names = {"en": "English", "ja": "Japanese", "zh": "Chinese", "many": "a hundred languages"}
    return " and ".join(names.get(one, one) for one in languages) or "unknown"
