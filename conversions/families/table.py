"""Every family by the model_type of its config.json, and what is left out, with the reason and what to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversions.errors import CheckpointError
from conversions.families.chinese_clip import ChineseClip
from conversions.families.clip import Clip
from conversions.families.family import Family
from conversions.families.metaclip2 import MetaClip2
from conversions.families.open_clip import OpenClip
from conversions.families.siglip import Siglip

FAMILIES: Mapping[str, Family] = {
    "chinese_clip": ChineseClip(),
    "clip": Clip(),
    "metaclip_2": MetaClip2(),
    "siglip": Siglip(),
}
OPEN_CLIP = OpenClip()

_FIXED = "a SigLIP 2 of fixed size, such as google/siglip2-base-patch16-256"
LEFT_OUT = {
    "siglip2": f"SigLIP 2 NaFlex takes images of any shape, which no batch can hold together. Use {_FIXED}",
    "align": f"ALIGN is not converted. Use {_FIXED}",
    "altclip": f"AltCLIP is not converted. Use {_FIXED}",
    "blip": "BLIP's vectors come from a decoder that is not converted. Use a CLIP or SigLIP model",
    "clipseg": "CLIPSeg segments images and gives no vectors of them",
    "clap": "CLAP hears sound and sees no images",
    "vision-text-dual-encoder": "two towers of any make are not converted. Use a CLIP or SigLIP model",
    "xclip": "X-CLIP is for videos. Use a CLIP or SigLIP model",
}


def family_of(config: Mapping[str, Any], folder: Path) -> Family:
    """The family of a checkpoint whose config.json is `config`. Raises CheckpointError for one that is left out."""
    if "model_cfg" in config:
        return OPEN_CLIP
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    said = f"{folder} cannot be converted: its config.json says model_type {kind!r}"
    if isinstance(kind, str) and kind in LEFT_OUT:
        raise CheckpointError(f"{said}. {LEFT_OUT[kind]}.")
    raise CheckpointError(f"{said}, which is none of {', '.join(sorted(FAMILIES))}.")
