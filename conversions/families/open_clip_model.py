"""A model of open_clip in transformers' modules, and open_clip's own transforms around it. Imports torch.

tests/golden/open_clip.py compares all of it with open_clip itself, in an environment of its own.
"""

from __future__ import annotations

import hashlib
import html
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPVisionModelWithProjection, PreTrainedTokenizerFast, SiglipModel

from clipsrv.manifest import VISION
from clipsrv.specs import ScoringSpec
from conversions.errors import CheckpointError
from conversions.families.family import Exportable, Facts, Identity
from conversions.families.open_clip_weights import MeanPooledRoberta, read, siglip, vit
from conversions.families.timm_names import is_siglip
from conversions.files import TOKENIZER


class OpenClipOriginal:
    """The model by transformers' modules; images and texts by Pillow, ftfy and the checkpoint's tokenizer."""

    def __init__(self, folder: Path, facts: Facts, model: Mapping[str, Any]) -> None:
        self._facts, self._model = facts, model
        weights = read(folder)
        self._scale = float(weights.pop("logit_scale").exp())
        self._bias = weights.pop("logit_bias", None)
        self._image: SiglipModel | CLIPVisionModelWithProjection
        self._text: SiglipModel | MeanPooledRoberta
        try:
            if is_siglip(model["vision_cfg"]):
                self._image = self._text = siglip(model, weights, facts)
            else:
                self._image, self._text = vit(model, weights, facts), MeanPooledRoberta(model, weights, facts)
        except (KeyError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"Cannot load the weights of {folder}: {reason[:240]}") from error
        self._tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))

    @property
    def scoring(self) -> ScoringSpec:
        if self._bias is None:
            return ScoringSpec("softmax", self._scale)
        return ScoringSpec("sigmoid", self._scale, float(self._bias))

    def identity(self, tokenizer: bytes) -> Identity:
        facts: Identity = {"family": "open_clip", "context": self._facts.context_length}
        for name, part in (("vision", self._image), ("text", self._text)):
            config: Any = getattr(part.config, f"{name}_config", part.config)
            facts |= {
                f"{name}.activation": config.hidden_act,
                f"{name}.epsilon": config.layer_norm_eps,
                f"{name}.heads": config.num_attention_heads,
            }
        tokens = self._facts.tokens
        facts |= {"tokens": tokens.kind, "clean": tokens.clean, "pad": tokens.pad_id or 0}
        facts["tokenizer"] = hashlib.sha256(tokenizer).hexdigest()[:16]
        return facts

    def crops(self, images: Sequence[Image.Image]) -> NDArray[Any]:
        return np.stack([self._crop(image.convert("RGB")).transpose(2, 0, 1) for image in images])

    def pixels(self, crops: NDArray[Any]) -> torch.Tensor:
        spec = self._facts.preprocess
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.image_mean, spec.image_std))
        return (torch.from_numpy(crops).float().div(255) - mean) / std

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [_CLEANINGS[self._facts.tokens.clean](text) for text in texts]
        rows = self._tokenizer(cleaned, truncation=True, max_length=self._facts.context_length)["input_ids"]
        if self._facts.tokens.padding == "ignored":
            return [list(row) for row in rows]
        length, pad = self._facts.context_length, self._facts.tokens.pad_id or 0
        return [[*row, *[pad] * (length - len(row))] for row in rows]

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if isinstance(self._image, SiglipModel):
            pooled: torch.Tensor = self._image.get_image_features(pixel_values=pixels)
            return pooled
        features: torch.Tensor = self._image(pixel_values=pixels).image_embeds
        return features

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        rows = self.token_ids(texts)
        longest, pad = max(map(len, rows)), self._facts.tokens.pad_id or 0
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
        if isinstance(self._text, SiglipModel):
            pooled: torch.Tensor = self._text.get_text_features(input_ids=ids)
            return pooled
        features: torch.Tensor = self._text(ids)
        return features

    def tower(self, name: str) -> Exportable:
        from conversions.export import clip_vision, siglip_text, siglip_vision

        part: Any = self._image if name == VISION else self._text
        config: Any = getattr(part.config, f"{name}_config", part.config)
        if isinstance(part, MeanPooledRoberta):
            return Exportable(part, heads=config.num_attention_heads, width=config.hidden_size, through="torch")
        part.set_attn_implementation("eager")
        if isinstance(part, SiglipModel):
            module = siglip_vision(part) if name == VISION else siglip_text(part)
        else:
            return Exportable(clip_vision(part), heads=config.num_attention_heads, width=config.hidden_size, taken=0)
        return Exportable(module, heads=config.num_attention_heads, width=config.hidden_size)

    def _crop(self, image: Image.Image) -> NDArray[np.uint8]:
        """torchvision's Resize and CenterCrop of an image: int(size * long / short), int(round(half the rest))."""
        spec = self._facts.preprocess
        side, short = spec.shortest_edge, min(image.size)
        resample = Image.Resampling.BILINEAR if spec.resample == "bilinear" else Image.Resampling.BICUBIC
        if spec.resize == "squash":
            return np.asarray(image.resize((side, side), resample))
        width, height = (side if length == short else int(side * length / short) for length in image.size)
        resized = image.resize((width, height), resample)
        left, top = round((width - side) / 2), round((height - side) / 2)
        return np.asarray(resized.crop((left, top, left + side, top + side)))


def _whitespace(text: str) -> str:
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(text.split())


def _canonicalize(text: str) -> str:
    text = _whitespace(text).replace("_", " ")
    text = text.translate(str.maketrans("", "", string.punctuation)).lower()
    return " ".join(text.split())


_CLEANINGS = {"whitespace": _whitespace, "canonicalize": _canonicalize}
