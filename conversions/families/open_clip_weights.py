"""open_clip's weights under the names of transformers' modules. Imports torch.

tests/golden/open_clip.py compares what they compute with open_clip itself, in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from conversions.errors import CheckpointError
from conversions.families.family import Facts
from conversions.families.timm_names import activation
from conversions.files import weight_files

Weights = dict[str, torch.Tensor]
#: Sizes of the two that are taken, which open_clip asks the Hub for: (width, layers, heads).
_ROBERTA = {"xlm-roberta-base": (768, 12, 12), "xlm-roberta-large": (1024, 24, 16)}


class MeanPooledRoberta(torch.nn.Module):
    """XLM-RoBERTa, the mean of its tokens, and a projection: ids (n, length) to (n, dimensions). Padding is masked."""

    def __init__(self, model: Mapping[str, Any], weights: Weights, facts: Facts) -> None:
        super().__init__()
        width, layers, heads = _ROBERTA[model["text_cfg"]["hf_model_name"]]
        table = weights["text.transformer.embeddings.word_embeddings.weight"]
        positions = weights["text.transformer.embeddings.position_embeddings.weight"]
        inner = weights["text.transformer.encoder.layer.0.intermediate.dense.weight"]
        self.config = XLMRobertaConfig(
            vocab_size=len(table),
            hidden_size=table.shape[1],
            num_hidden_layers=1 + max(int(name.split(".")[4]) for name in weights if ".encoder.layer." in name),
            num_attention_heads=heads if table.shape[1] == width else max(1, table.shape[1] // 64),
            intermediate_size=len(inner),
            max_position_embeddings=len(positions),
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            pad_token_id=1,
        )
        if layers and table.shape[1] == width and self.config.num_hidden_layers > layers:
            raise KeyError("more layers than the model of that name has")
        with torch.device("meta"):
            self.transformer = XLMRobertaModel(self.config, add_pooling_layer=False)
        part = _under(weights, "text.transformer.")
        part.pop("embeddings.position_ids", None)
        self.transformer.to_empty(device="cpu")
        self.transformer.embeddings.position_ids = torch.arange(len(positions))[None]
        self.transformer.embeddings.token_type_ids = torch.zeros((1, len(positions)), dtype=torch.int64)
        self.transformer.load_state_dict(part, strict=True)
        self.transformer.set_attn_implementation("eager")
        proj = _under(weights, "text.proj.")
        first, *second = proj.values()
        self.proj = torch.nn.Sequential(
            _linear(first), *(part for one in second for part in (torch.nn.GELU(), _linear(one)))
        )
        self.train(False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        mask = (input_ids != 1).long()
        states = self.transformer(input_ids=input_ids, attention_mask=mask).last_hidden_state
        pooled = (states * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(-1, keepdim=True)
        features: torch.Tensor = self.proj(pooled)
        return features


def siglip(model: Mapping[str, Any], weights: Weights, facts: Facts) -> SiglipModel:
    vision, text = model["vision_cfg"], model["text_cfg"]
    patches = weights["visual.trunk.patch_embed.proj.weight"]
    width = len(patches)
    text_act = "gelu_pytorch_tanh" if (text.get("act_kwargs") or {}).get("approximate") == "tanh" else "gelu"
    config = SiglipConfig(
        vision_config={
            "image_size": facts.image_size,
            "patch_size": patches.shape[-1],
            "hidden_size": width,
            "intermediate_size": len(weights["visual.trunk.blocks.0.mlp.fc1.weight"]),
            "num_hidden_layers": _count(weights, "visual.trunk.blocks."),
            "num_attention_heads": 16 if width in (1024, 1152, 1536) else width // 64,
            "hidden_act": activation(vision),
        },
        text_config={
            "vocab_size": len(weights["text.token_embedding.weight"]),
            "max_position_embeddings": facts.context_length,
            "hidden_size": text["width"],
            "intermediate_size": len(weights["text.transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": _count(weights, "text.transformer.resblocks."),
            "num_attention_heads": text["heads"],
            "layer_norm_eps": (text.get("norm_kwargs") or {}).get("eps", 1e-5),
            "hidden_act": text_act,
            "projection_size": facts.dimensions,
        },
    )
    mapped = _timm(_under(weights, "visual.trunk."), "vision_model.")
    mapped |= _blocks(_under(weights, "text.transformer.resblocks."), "text_model.encoder.layers.")
    mapped |= {
        "text_model.embeddings.token_embedding.weight": weights["text.token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["text.positional_embedding"],
        **{f"text_model.final_layer_norm.{end}": weights[f"text.ln_final.{end}"] for end in ("weight", "bias")},
        **{f"text_model.head.{end}": weights[f"text.text_projection.{end}"] for end in ("weight", "bias")},
    }
    # What they were trained to is the manifest's scoring; the module has a place for them.
    mapped |= {"logit_scale": torch.zeros(1), "logit_bias": torch.zeros(1)}
    original = SiglipModel(config)
    original.load_state_dict(mapped, strict=True)
    return cast(SiglipModel, original.eval())


def _timm(weights: Weights, into: str) -> Weights:
    """timm's VisionTransformer with attention pooling, under SiglipVisionTransformer's names."""
    mapped: Weights = {
        f"{into}embeddings.patch_embedding.weight": weights["patch_embed.proj.weight"],
        f"{into}embeddings.patch_embedding.bias": weights["patch_embed.proj.bias"],
        f"{into}embeddings.position_embedding.weight": weights["pos_embed"][0],
        f"{into}head.probe": weights["attn_pool.latent"],
        f"{into}head.attention.in_proj_weight": torch.cat(
            [weights["attn_pool.q.weight"], weights["attn_pool.kv.weight"]]
        ),
        f"{into}head.attention.in_proj_bias": torch.cat([weights["attn_pool.q.bias"], weights["attn_pool.kv.bias"]]),
    }
    names = {"attn_pool.proj": "head.attention.out_proj", "attn_pool.norm": "head.layernorm", "norm": "post_layernorm"}
    names |= {f"attn_pool.mlp.{part}": f"head.mlp.{part}" for part in ("fc1", "fc2")}
    for layer in range(_count(weights, "blocks.")):
        old, new = f"blocks.{layer}.", f"encoder.layers.{layer}."
        names |= {f"{old}norm{one}": f"{new}layer_norm{one}" for one in (1, 2)}
        names |= {f"{old}mlp.{part}": f"{new}mlp.{part}" for part in ("fc1", "fc2")}
        names |= {f"{old}attn.proj": f"{new}self_attn.out_proj"}
        for end in ("weight", "bias"):
            for part, value in zip("qkv", weights[f"{old}attn.qkv.{end}"].chunk(3), strict=True):
                mapped[f"{into}{new}self_attn.{part}_proj.{end}"] = value
    return mapped | {
        f"{into}{new}.{end}": weights[f"{old}.{end}"] for old, new in names.items() for end in ("weight", "bias")
    }


def vit(model: Mapping[str, Any], weights: Weights, facts: Facts) -> CLIPVisionModelWithProjection:
    """open_clip's VisionTransformer as transformers' CLIP image tower."""
    part = _under(weights, "visual.")
    width = len(part["class_embedding"])
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=len(part["transformer.resblocks.0.mlp.c_fc.weight"]),
        num_hidden_layers=_count(part, "transformer.resblocks."),
        num_attention_heads=width // (model["vision_cfg"].get("head_width") or 64),
        image_size=facts.image_size,
        patch_size=part["conv1.weight"].shape[-1],
        hidden_act="quick_gelu" if model.get("quick_gelu") else "gelu",
        layer_norm_eps=1e-5,
        projection_dim=facts.dimensions,
    )
    mapped = _blocks(_under(part, "transformer.resblocks."), "vision_model.encoder.layers.")
    mapped |= {
        "vision_model.embeddings.class_embedding": part["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": part["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": part["positional_embedding"],
        "visual_projection.weight": part["proj"].T.contiguous(),
    }
    for old, new in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        mapped |= {f"vision_model.{new}.{end}": part[f"{old}.{end}"] for end in ("weight", "bias")}
    original = CLIPVisionModelWithProjection(config)
    original.load_state_dict(mapped, strict=True)
    return cast(CLIPVisionModelWithProjection, original.eval())


def _blocks(weights: Weights, into: str) -> Weights:
    """open_clip's residual blocks under transformers' names."""
    mapped: Weights = {}
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(_count(weights, "")):
        for end in ("weight", "bias"):
            mapped |= {f"{into}{layer}.{new}.{end}": weights[f"{layer}.{old}.{end}"] for old, new in names.items()}
            for part, value in zip("qkv", weights[f"{layer}.attn.in_proj_{end}"].chunk(3), strict=True):
                mapped[f"{into}{layer}.self_attn.{part}_proj.{end}"] = value
    return mapped


def read(folder: Path) -> Weights:
    (path,) = weight_files(folder)
    try:
        loaded: Weights = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"Cannot load the weights of {folder}: {reason[:240]}") from error
    return {name.removeprefix("module."): value.float() for name, value in loaded.items()}


def _under(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _count(weights: Weights, prefix: str) -> int:
    """How many numbered blocks there are."""
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix))


def _linear(weight: torch.Tensor) -> torch.nn.Linear:
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(weight)
    return linear
