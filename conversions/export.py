"""PyTorch to ONNX: one graph per tower, projection included, batch (and text length) dynamic.

Through Optimum where it knows the module, else through PyTorch's own exporter. What reaches no vector is left out: the
last layer is computed for the token alone that is pooled, SigLIP's pooling mixes patches before it projects them.
Text takes ids only: what is padded cannot change a vector, or is read like any id. verify.py proves both each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import CLIPTextWithProjectionOnnxConfig, CLIPVisionModelOnnxConfig
from transformers import (
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    SiglipModel,
)

from clipsrv.manifest import TEXT, VISION
from clipsrv.runtime.packing import pack
from clipsrv.specs import TowerSpec
from conversions.families.family import Exportable, Facts
from conversions.last_layer import ClassTokenOnly, FirstTokenOnly, LastTokenOnly

#: The newest opset that all four providers run (CoreML and OpenVINO lag behind onnxruntime's own).
OPSET = 18

_INPUTS = {VISION: "pixel_values", TEXT: "input_ids"}
_OUTPUTS = {VISION: "image_embeds", TEXT: "text_embeds"}


class _VisionConfig(CLIPVisionModelOnnxConfig):  # type: ignore[misc]
    # Optimum's own expects the outputs of the tower without its projection.
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {_INPUTS[VISION]: {0: "batch"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {_OUTPUTS[VISION]: {0: "batch"}}


class _TextConfig(CLIPTextWithProjectionOnnxConfig):  # type: ignore[misc]
    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {_INPUTS[TEXT]: {0: "batch", 1: "length"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {_OUTPUTS[TEXT]: {0: "batch"}}


class _PooledPatches(torch.nn.Module):
    """SigLIP's pooling head: one query, learnt, attends to all patches: (batch, tokens, width) to (batch, width).

    The query is no input, so it is projected here, once, back through the keys' weights; and values are projected after
    they have been mixed. Both products with every patch become products with one token, the same within rounding. What
    sees one token stays float32 in int8, which takes products of three dimensions only: no later layer evens it out.
    """

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        attention, probe = cast(Any, head.attention), cast(torch.Tensor, head.probe)
        query, keys, values = attention.in_proj_weight.chunk(3)
        query_bias, _, values_bias = attention.in_proj_bias.chunk(3)  # a key's offset is the same for all patches
        width, heads = attention.embed_dim, attention.num_heads
        size = width // heads
        asked = ((query @ probe[0, 0] + query_bias) * size**-0.5).view(heads, 1, size)
        self.asked = torch.nn.Parameter((asked @ keys.view(heads, size, width))[:, 0].T.contiguous())
        self.values = torch.nn.Parameter(values.view(heads, size, width).transpose(1, 2).contiguous())
        self.values_bias = torch.nn.Parameter(values_bias)
        self.out: Any = attention.out_proj
        self.layernorm: Any = head.layernorm
        self.mlp: Any = head.mlp

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax((states @ self.asked).transpose(1, 2), dim=-1)
        mixed = ((weights @ states).unsqueeze(2) @ self.values).flatten(1) + self.values_bias
        pooled: torch.Tensor = self.out(mixed)
        further: torch.Tensor = self.mlp(self.layernorm(pooled))
        return pooled + further


def export_tower(tower: Exportable, name: str, graph: Path) -> None:
    """Writes one tower to `graph`, as plain ONNX operators in float32."""
    module = tower.module.train(False)
    if tower.through == "optimum":
        kind = _VisionConfig if name == VISION else _TextConfig
        export(module, kind(module.config, task="feature-extraction"), graph, opset=OPSET)
        return
    example, free = _example(tower, name)
    torch.onnx.export(
        module,
        tuple(example.values()),
        str(graph),
        input_names=[*example],
        output_names=[_OUTPUTS[name]],
        dynamic_axes={**free, _OUTPUTS[name]: {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )


def _example(tower: Exportable, name: str) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, str]]]:
    """Inputs to trace with, by name, and which of their axes are free."""
    texts = {0: "batch", 1: "length"}
    if tower.packed:
        example = pack(np.array([[0, 1, 2, 4], [0, 1, 3, 4]]))._asdict()
        axes = [texts, texts, {0: "rows"}]
        return {key: torch.from_numpy(ids) for key, ids in example.items()}, dict(zip(example, axes, strict=True))
    config: Any = tower.module.config
    if name == VISION:
        side = config.image_size
        return {_INPUTS[name]: torch.zeros(2, 3, side, side)}, {_INPUTS[name]: {0: "batch"}}
    ids = torch.ones(2, config.max_position_embeddings, dtype=torch.int64)
    return {_INPUTS[name]: ids}, {_INPUTS[name]: texts}


def clip_vision(model: CLIPModel | CLIPVisionModelWithProjection) -> torch.nn.Module:
    config = model.config.vision_config if isinstance(model, CLIPModel) else model.config
    with torch.device("meta"):  # It borrows its weights: none of its own are made.
        part = CLIPVisionModelWithProjection(config)
    part.vision_model, part.visual_projection = model.vision_model, model.visual_projection
    class_token_only(part.vision_model)
    return part


def clip_text(model: CLIPModel) -> torch.nn.Module:
    with torch.device("meta"):
        part = CLIPTextModelWithProjection(model.config.text_config)
    part.text_model, part.text_projection = model.text_model, model.text_projection
    return part


class Pooled(torch.nn.Module):
    """The vector that a tower of transformers pools, projected where the model does so."""

    def __init__(self, tower: torch.nn.Module, projection: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection or torch.nn.Identity()

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.projection(self.tower(value).pooler_output)
        return features


class FirstToken(torch.nn.Module):
    """The projected first token of BERT, which sees every token but padding. Changes the tower's last layer."""

    def __init__(self, tower: torch.nn.Module, projection: torch.nn.Module, pad: int) -> None:
        super().__init__()
        layers = cast(Any, tower).encoder.layer
        layers[-1] = FirstTokenOnly(layers[-1])
        self.tower, self.projection, self.pad = tower, projection, pad

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        states = self.tower(input_ids=value, attention_mask=(value != self.pad).long()).last_hidden_state
        features: torch.Tensor = self.projection(states[:, 0])
        return features


class _Tower(torch.nn.Module):
    def __init__(self, part: torch.nn.Module, config: PretrainedConfig) -> None:
        super().__init__()
        self.part, self.config = part, config


class _Images(_Tower):
    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {_OUTPUTS[VISION]: self.part(pixel_values)}


class _Texts(_Tower):
    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {_OUTPUTS[TEXT]: self.part(input_ids)}


def named(part: torch.nn.Module, config: PretrainedConfig, tower: str) -> torch.nn.Module:
    """`part`, which makes features of one input, under the names that inputs and vectors have in every graph here."""
    return (_Images if tower == VISION else _Texts)(part, config)


def class_token_only(tower: torch.nn.Module) -> torch.nn.Module:
    """CLIP's image tower, its last layer computed for the class token alone. Changes it."""
    layers: Any = cast(Any, tower).encoder.layers
    layers[-1] = ClassTokenOnly(layers[-1])
    return tower


def siglip_vision(model: SiglipModel) -> torch.nn.Module:
    part: Any = model.vision_model
    part.head = _PooledPatches(part.head)
    return named(Pooled(part), model.config.vision_config, VISION)


def siglip_text(model: SiglipModel) -> torch.nn.Module:
    part: Any = model.text_model
    part.encoder.layers[-1] = LastTokenOnly(part.encoder.layers[-1])
    return named(Pooled(part), model.config.text_config, TEXT)


def tower_spec(tower: str, variants: dict[str, str], facts: Facts, tokenizer: str) -> TowerSpec:
    """What the manifest says of an exported tower."""
    names = _INPUTS[tower], _OUTPUTS[tower], variants
    if tower == VISION:
        return TowerSpec(*names)
    return TowerSpec(*names, facts.context_length, tokenizer, facts.tokens)
