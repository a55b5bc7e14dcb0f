"""CLIP as transformers' CLIPModel has it: OpenAI's, LAION's, DataComp's, DFN's, FashionCLIP.

The vector of an image is its class token's, that of a text its end mark's, both projected. Texts are causal, so what is
padded behind the end cannot change them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsrv.manifest import VISION
from clipsrv.specs import PreprocessSpec, ScoringSpec, TokenSpec
from conversions.errors import CheckpointError
from conversions.families.family import Exportable, Facts, Identity
from conversions.files import TOKENIZER
from conversions.golden import TEXTS
from conversions.preprocessor import cropped

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

#: Digest of OpenAI's vocabulary, merges and special tokens, as `tokenizer_digest` makes it.
OPENAI_TOKENIZER = "7deaeb5ce3a75b4b"
#: What transformers takes OpenAI's own configurations by: their end of text is written as 2, which is not its id.
_LEGACY_END = 2


class Clip:
    name = "clip"

    def facts(self, folder: Path, config: Mapping[str, Any]) -> Facts:
        return facts_of(folder, config, cropped(folder), TokenSpec("clip"))

    def load(self, folder: Path, facts: Facts, *, safetensors: bool) -> ClipOriginal:
        return ClipOriginal(folder, facts, safetensors=safetensors)

    def tokenizer(self, folder: Path, facts: Facts) -> tuple[str, bytes]:
        if (folder / TOKENIZER).is_file():
            return TOKENIZER, (folder / TOKENIZER).read_bytes()
        return TOKENIZER, _load_tokenizer(folder).backend_tokenizer.to_str(pretty=True).encode()


class ClipOriginal:
    """The model, its image processor and its tokenizer, of the kinds that `kinds` names."""

    def __init__(self, folder: Path, facts: Facts, *, safetensors: bool) -> None:
        from conversions.families.loading import load_model

        model, processor, tokenizer = self.kinds()
        self.model: Any = load_model(model, folder, safetensors=safetensors)
        self._processor: Any = processor.from_pretrained(folder, local_files_only=True)
        self._tokenizer: Any = tokenizer.from_pretrained(folder, local_files_only=True)
        self._facts = facts

    @staticmethod
    def kinds() -> tuple[Any, Any, Any]:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

        return CLIPModel, CLIPImageProcessor, CLIPTokenizerFast

    @property
    def scoring(self) -> ScoringSpec:
        return ScoringSpec("softmax", float(self.model.logit_scale.exp()))

    def identity(self, tokenizer: bytes) -> Identity:
        return identity(self.model.config.to_dict(), json.loads(tokenizer))

    def crops(self, images: Sequence[Image.Image]) -> NDArray[Any]:
        # Left to guess where the channels are, it takes an image 1 or 3 pixels high for one with channels first.
        options = {"do_rescale": False, "do_normalize": False, "input_data_format": "channels_last"}
        crops: NDArray[Any] = self._processor(list(images), return_tensors="np", **options)["pixel_values"]
        return crops

    def pixels(self, crops: NDArray[Any]) -> torch.Tensor:
        done = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_first"}
        pixels: torch.Tensor = self._processor(list(crops), return_tensors="pt", **done)["pixel_values"]
        return pixels

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokens(texts, padding=False)["input_ids"]
        return ids

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.get_image_features(pixel_values=pixels)
        return features

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        features: torch.Tensor = self.model.get_text_features(**self._tokens(texts, padding=True, return_tensors="pt"))
        return features

    def tower(self, name: str) -> Exportable:
        from conversions.causal import CausalTexts
        from conversions.export import clip_text, clip_vision

        # Traces to the pattern that fusions know.
        self.model.set_attn_implementation("eager")
        if name == VISION:
            config = self.model.config.vision_config
            part = clip_vision(self.model)
            return Exportable(part, heads=config.num_attention_heads, width=config.hidden_size, taken=0)
        config = self.model.config.text_config
        tower, projection = self.model.text_model, self.model.text_projection
        texts = CausalTexts(tower, projection, self.begin(), largest_ends=True)
        heads, width, whole = config.num_attention_heads, config.hidden_size, clip_text(self.model)
        return Exportable(texts, heads, width, through="torch", packed=True, fusible=whole)

    def begin(self) -> int:
        """The id that every text begins with. Raises CheckpointError if there is none."""
        from conversions.causal import common_begin

        return common_begin(self.token_ids(TEXTS))

    def _tokens(self, texts: Sequence[str], **options: Any) -> Any:
        return self._tokenizer(list(texts), truncation=True, max_length=self._facts.context_length, **options)


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)


def facts_of(
    folder: Path, config: Mapping[str, Any], preprocess: PreprocessSpec, tokens: TokenSpec, longest: int = 2**20
) -> Facts:
    """What config.json says of a model with CLIP's kind of configuration; texts have `longest` tokens at most."""
    vision, text = (config.get(f"{tower}_config") or {} for tower in ("vision", "text"))
    try:
        return Facts(
            preprocess=preprocess,
            image_size=int(vision.get("image_size", 224)),
            dimensions=int(config.get("projection_dim", 512)),
            context_length=min(int(text.get("max_position_embeddings", 77)), longest),
            tokens=tokens,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json has values that cannot be: {error}.") from None


def identity_of(family: str, config: Any, facts: Facts, tokenizer: bytes) -> Identity:
    """The manifest's `identity` of a model of a family that format 1 did not know: all that changes vectors."""
    found: Identity = {"family": family, "context": facts.context_length}
    for tower in ("vision", "text"):
        part = getattr(config, f"{tower}_config", config)
        found |= {
            f"{tower}.activation": part.hidden_act,
            f"{tower}.epsilon": part.layer_norm_eps,
            f"{tower}.heads": part.num_attention_heads,
        }
    if (end := getattr(config.text_config, "eos_token_id", None)) is not None:
        found["text.end"] = end
    found |= {"tokens": facts.tokens.kind, "clean": facts.tokens.clean, "pad": facts.tokens.pad_id or 0}
    return found | {"tokenizer": hashlib.sha256(tokenizer).hexdigest()[:16]}


def identity(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> Identity:
    """The manifest's `identity`: what of the model is not as in OpenAI's.

    `config` is CLIPConfig with its defaults filled in, `tokenizer` the content of tokenizer.json. Everything else that
    transformers' code reads of a configuration shows in the shapes of the weights, or is used in training only.
    """
    facts: Identity = {}
    for tower in ("vision", "text"):
        part = config[f"{tower}_config"]
        found = {
            "activation": (part["hidden_act"], "quick_gelu"),
            "epsilon": (part["layer_norm_eps"], 1e-5),
            "heads": (part["num_attention_heads"], part["hidden_size"] // 64),
        }
        facts |= {f"{tower}.{name}": mine for name, (mine, openai) in found.items() if mine != openai}
    text = config["text_config"]
    # The text's vector is taken at the first of its largest ids, or at the first end of text: the same if that is last.
    if text["eos_token_id"] not in (_LEGACY_END, text["vocab_size"] - 1):
        facts["text.end"] = text["eos_token_id"]
    if (digest := tokenizer_digest(tokenizer)) != OPENAI_TOKENIZER:
        facts["tokenizer"] = digest
    return facts


def tokenizer_digest(rules: Mapping[str, Any]) -> str:
    """Hash of what decides about ids in a tokenizer.json with CLIP's rules, however it is written."""
    model = rules["model"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    facts = {
        "vocab": model["vocab"],
        "merges": merges,
        "added": sorted((token["id"], token["content"]) for token in rules["added_tokens"]),
        "frame": [rules["post_processor"].get(end) for end in ("cls", "sep")],
        **{name: model.get(name) for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")},
        **{name: bool(model.get(name)) for name in ("fuse_unk", "byte_fallback", "ignore_merges")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
