"""What timm's name of an image tower says, in open_clip's configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: SigLIP's image towers by timm's names. Those of the second kind have the tanh form of GELU (timm 1.0.31).
_SIGLIP = re.compile(r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+")
_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")


def is_siglip(vision: Mapping[str, Any]) -> bool:
    """Whether timm's name is that of one of SigLIP's image towers."""
    return _SIGLIP.fullmatch(str(vision.get("timm_model_name", ""))) is not None


def activation(vision: Mapping[str, Any]) -> str:
    """The activation of a SigLIP image tower, in transformers' words."""
    return "gelu_pytorch_tanh" if _TANH.match(vision["timm_model_name"]) else "gelu"
