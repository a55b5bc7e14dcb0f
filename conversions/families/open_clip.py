"""Checkpoints in open_clip's own form: open_clip_config.json and one file of weights. No code beside them is run.

Two of its architectures, as modules of transformers with the same weights: SigLIP's (Marqo's models for fashion and
shops), and a ViT beside XLM-RoBERTa, mean-pooled. Its transforms and cleaning of texts are followed, not transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsrv.specs import PreprocessSpec, TokenSpec
from conversions.errors import CheckpointError
from conversions.families.family import Facts
from conversions.families.timm_names import is_siglip
from conversions.files import OPEN_CLIP_CONFIG, TOKENIZER, read_object
from conversions.tokenizers.pipeline import pad_id, read_rules, read_settings, served

if TYPE_CHECKING:
    from conversions.families.open_clip_model import OpenClipOriginal

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Known = Mapping[str, tuple[Any, ...] | None]
#: Settings that are understood, by part; None stands for any value, which then counts.
_SIGLIP_VISION = {"image_size": None, "timm_model_name": None, "timm_model_pretrained": None, "timm_pool": ("map",)}
_SIGLIP_VISION |= {"timm_proj": ("none",)}
_SIGLIP_TEXT = {
    **dict.fromkeys(("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs")),
    **dict.fromkeys(("width", "heads", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs")),
    **{"no_causal_mask": (True,), "proj_bias": (True,), "pool_type": ("last",)},
}
_VIT: Known = dict.fromkeys(("image_size", "layers", "width", "patch_size", "head_width"))
_ROBERTA: dict[str, tuple[Any, ...] | None] = {
    "hf_model_name": ("xlm-roberta-base", "xlm-roberta-large"),
    "hf_pooler_type": ("mean_pooler",),
    "hf_proj_type": ("mlp", "linear"),
}
_ROBERTA |= dict.fromkeys(("hf_tokenizer_name", "tokenizer_kwargs", "context_length", "hf_model_pretrained"))
_MODEL = {"embed_dim": None, "vision_cfg": None, "text_cfg": None, "custom_text": None, "quick_gelu": None}
_MODEL |= {"init_logit_bias": None, "init_logit_scale": None}
_PREPROCESS: dict[str, tuple[Any, ...] | None] = {
    "mean": None,
    "std": None,
    "size": None,
    "mode": ("RGB",),
    "fill_color": None,
}
_PREPROCESS["interpolation"], _PREPROCESS["resize_mode"] = ("bicubic", "bilinear"), ("shortest", "squash")


class OpenClip:
    name = "open_clip"

    def facts(self, folder: Path, config: Mapping[str, Any]) -> Facts:
        model = _known(folder, "model_cfg", config.get("model_cfg"), _MODEL)
        vision, text = model.get("vision_cfg") or {}, model.get("text_cfg") or {}
        siglip = is_siglip(vision)
        _known(folder, "vision_cfg", vision, _SIGLIP_VISION if siglip else _VIT)
        _known(folder, "text_cfg", text, _SIGLIP_TEXT if siglip else _ROBERTA)
        missing = {"pool_type", "no_causal_mask", "proj_bias"} if siglip else {"hf_model_name", "hf_pooler_type"}
        if absent := missing - set(text):
            raise CheckpointError(f"{folder}: text_cfg without {', '.join(sorted(absent))} is not converted.")
        try:
            side = int(vision["image_size"])
            return Facts(
                preprocess=_preprocess(folder, config.get("preprocess_cfg") or {}, side),
                image_size=side,
                dimensions=int(model["embed_dim"]),
                context_length=int(text.get("context_length", 77)),
                tokens=_tokens(folder, text, read="read" if siglip else "ignored"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}/{OPEN_CLIP_CONFIG} has values that cannot be: {error!r}.") from None

    def load(self, folder: Path, facts: Facts, *, safetensors: bool) -> OpenClipOriginal:
        from conversions.families.open_clip_model import OpenClipOriginal

        return OpenClipOriginal(folder, facts, read_object(folder / OPEN_CLIP_CONFIG)["model_cfg"])

    def tokenizer(self, folder: Path, facts: Facts) -> tuple[str, bytes]:
        return TOKENIZER, served(read_rules(folder))


def _known(folder: Path, part: str, found: Any, known: Known) -> dict[str, Any]:
    """`found` if every setting in it is understood. Raises CheckpointError naming the first that is not."""
    if not isinstance(found, dict):
        raise CheckpointError(f"{folder}/{OPEN_CLIP_CONFIG} has no {part}.")
    for name, value in found.items():
        allowed = known.get(name, ()) if name in known else ()
        if value is not None and allowed is not None and value not in allowed:
            raise CheckpointError(
                f"{folder} cannot be converted: its {part} says {name} {value!r}, which is not done here. Of open_clip "
                "models of SigLIP and with XLM-RoBERTa are; many others are on the Hub as CLIPModel too."
            )
    return found


def _preprocess(folder: Path, raw: Any, side: int) -> PreprocessSpec:
    steps = _known(folder, "preprocess_cfg", raw, _PREPROCESS)
    if steps.get("size") not in (None, side, [side, side]):
        raise CheckpointError(f"{folder} resizes to {steps['size']} what its model takes at {side} pixels.")
    mean, std = (tuple(map(float, steps.get(key) or usual)) for key, usual in (("mean", _MEAN), ("std", _STD)))
    (red, green, blue), (red_std, green_std, blue_std) = mean, std
    return PreprocessSpec(
        shortest_edge=side,
        crop_size=side,
        image_mean=(red, green, blue),
        image_std=(red_std, green_std, blue_std),
        resample=steps.get("interpolation") or "bicubic",
        resize="squash" if steps.get("resize_mode") == "squash" else "shortest_edge",
        crop_offset="round",
    )


def _tokens(folder: Path, text: Mapping[str, Any], *, read: str) -> TokenSpec:
    rules = read_rules(folder)
    options = text.get("tokenizer_kwargs") or {}
    if others := set(options) - {"clean"}:
        raise CheckpointError(f"{folder}: tokenizer_kwargs {', '.join(sorted(others))} are not done here.")
    kind = {"Unigram": "unigram", "BPE": "gemma"}.get(rules["model"]["type"])
    if kind is None:
        raise CheckpointError(f"{folder}: a tokenizer of the kind {rules['model']['type']} is not converted here.")
    pad = pad_id(rules, read_settings(folder))
    return TokenSpec(kind, pad, read, clean=options.get("clean", "whitespace"))
