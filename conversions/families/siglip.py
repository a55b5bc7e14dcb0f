"""SigLIP, and SigLIP 2 of fixed size, as transformers' SiglipModel has them.

The image tower pools all its patches by an attention of its own, the text tower takes its last token, whatever that is:
texts are padded to the whole context, without a mask. Neither is projected afterwards. Labels are scored one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsrv.manifest import VISION
from clipsrv.specs import ScoringSpec, TokenSpec
from conversions.errors import CheckpointError
from conversions.families.clip import identity_of
from conversions.families.family import Exportable, Facts, Identity
from conversions.files import SPIECE, TOKENIZER
from conversions.preprocessor import squashed
from conversions.tokenizers import gemma, sentencepiece
from conversions.tokenizers.pipeline import pad_id, read_rules, read_settings, served

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image


class Siglip:
    name = "siglip"

    def facts(self, folder: Path, config: Mapping[str, Any]) -> Facts:
        vision, text = (config.get(f"{tower}_config") or {} for tower in ("vision", "text"))
        try:
            width = int(vision.get("hidden_size", 768))
            if not vision.get("vision_use_head", True) or int(text.get("projection_size", width) or width) != width:
                raise CheckpointError(f"{folder} has no pooling head, or towers whose vectors differ in length.")
            return Facts(
                preprocess=squashed(folder),
                image_size=int(vision.get("image_size", 224)),
                dimensions=width,
                context_length=int(text.get("max_position_embeddings", 64)),
                tokens=_tokens(folder),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}/config.json has values that cannot be: {error}.") from None

    def load(self, folder: Path, facts: Facts, *, safetensors: bool) -> SiglipOriginal:
        return SiglipOriginal(folder, facts, safetensors=safetensors)

    def tokenizer(self, folder: Path, facts: Facts) -> tuple[str, bytes]:
        if facts.tokens.kind == "siglip":
            return SPIECE, sentencepiece.without_prefix(folder / SPIECE)
        return TOKENIZER, served(gemma.as_siglip2(read_rules(folder)))


class SiglipOriginal:
    """SiglipModel and SiglipImageProcessor, with the tokenizer of transformers: SiglipTokenizer for the first SigLIP.

    For SigLIP 2 it is GemmaTokenizerFast with the lower-casing of transformers 5's Siglip2Tokenizer in front.
    """

    def __init__(self, folder: Path, facts: Facts, *, safetensors: bool) -> None:
        from transformers import SiglipImageProcessor, SiglipModel

        from conversions.families.loading import load_model

        self.model = load_model(SiglipModel, folder, safetensors=safetensors)
        self._processor: Any = SiglipImageProcessor.from_pretrained(folder, local_files_only=True)
        self._tokenizer, self._facts = _load_tokenizer(folder, facts.tokens), facts

    @property
    def scoring(self) -> ScoringSpec:
        return ScoringSpec("sigmoid", float(self.model.logit_scale.exp()), float(self.model.logit_bias))

    def identity(self, tokenizer: bytes) -> Identity:
        return identity_of("siglip", self.model.config, self._facts, tokenizer)

    def crops(self, images: Sequence[Image.Image]) -> NDArray[Any]:
        options = {"do_rescale": False, "do_normalize": False, "input_data_format": "channels_last"}
        crops: NDArray[Any] = self._processor(list(images), return_tensors="np", **options)["pixel_values"]
        return crops

    def pixels(self, crops: NDArray[Any]) -> torch.Tensor:
        done = {"do_resize": False, "input_data_format": "channels_first"}
        pixels: torch.Tensor = self._processor(list(crops), return_tensors="pt", **done)["pixel_values"]
        return pixels

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        length = self._facts.context_length
        tokens = self._tokenizer(list(texts), padding="max_length", truncation=True, max_length=length)
        ids: list[list[int]] = tokens["input_ids"]
        return ids

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.get_image_features(pixel_values=pixels)
        return features

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        features: torch.Tensor = self.model.get_text_features(input_ids=torch.tensor(self.token_ids(texts)))
        return features

    def tower(self, name: str) -> Exportable:
        from conversions.export import siglip_text, siglip_vision

        self.model.set_attn_implementation("eager")
        config = self.model.config.vision_config if name == VISION else self.model.config.text_config
        part = siglip_vision(self.model) if name == VISION else siglip_text(self.model)
        return Exportable(part, heads=config.num_attention_heads, width=config.hidden_size)


def _tokens(folder: Path) -> TokenSpec:
    if (folder / SPIECE).is_file():
        marks = sentencepiece.marks(read_settings(folder))
        return TokenSpec(
            "siglip", sentencepiece.piece_id(folder / SPIECE, marks[1]), "read", tuple(dict.fromkeys(marks))
        )
    if not (folder / TOKENIZER).is_file():
        raise CheckpointError(f"{folder} has no tokenizer: neither {SPIECE} (SigLIP) nor {TOKENIZER} (SigLIP 2).")
    if read_settings(folder).get("padding_side") == "left":
        raise CheckpointError(f"{folder} pads texts on the left, which no SigLIP is trained with: save it with right.")
    return TokenSpec("gemma", pad_id(read_rules(folder), read_settings(folder)), "read")


def _load_tokenizer(folder: Path, tokens: TokenSpec) -> Any:
    from tokenizers import Tokenizer, normalizers
    from transformers import GemmaTokenizerFast, SiglipTokenizer

    if tokens.kind == "siglip":
        return SiglipTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer: Any = GemmaTokenizerFast.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "right"  # Gemma's own is left; SigLIP's texts begin at their beginning
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), backend.normalizer])
    # transformers 5 keeps the marks of tokenizer.json; 4.57 adds those that it supposes.
    backend.post_processor = Tokenizer.from_file(str(folder / TOKENIZER)).post_processor
    return tokenizer
