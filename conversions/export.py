"""PyTorch to ONNX through Optimum: one graph per tower, projection included, batch (and text length) dynamic.

The image tower's last layer is computed for the class token alone: the vector is taken there. Text takes ids only:
attention is causal and the vector is taken at the end-of-text token, so what is padded behind it cannot change it and
no attention mask is needed. verify.py proves that for every conversion.
"""

from __future__ import annotations

from pathlib import Path

import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import CLIPTextWithProjectionOnnxConfig, CLIPVisionModelOnnxConfig
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from clipsrv.manifest import TEXT, VISION
from clipsrv.specs import TowerSpec

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


class _ClassTokenOnly(torch.nn.Module):
    """An encoder layer's output at the first token only: (batch, tokens, width) to (batch, 1, width).

    After the last layer CLIP reads nothing but the class token, so queries, output projection and MLP of the others
    are five sixths of a layer's work for nothing. The token still attends to all of them. Written in the operators of
    transformers' own eager attention: onnxruntime's shape inference, and with it fp16's fusions, gives up on others.
    """

    def __init__(self, layer: CLIPEncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
        layer, attention = self.layer, self.layer.self_attn

        def heads(values: torch.Tensor) -> torch.Tensor:
            return values.view(*values.shape[:2], -1, attention.head_dim).transpose(1, 2)

        normal, token = layer.layer_norm1(states), states[:, 0].unsqueeze(1)
        queries = heads(attention.q_proj(normal[:, 0].unsqueeze(1)))
        weights = torch.softmax(queries @ heads(attention.k_proj(normal)).transpose(-1, -2) * attention.scale, dim=-1)
        mixed = (weights @ heads(attention.v_proj(normal))).transpose(1, 2).reshape(token.shape)
        token = token + attention.out_proj(mixed)
        return (token + layer.mlp(layer.layer_norm2(token)),)


def export_tower(model: CLIPModel, tower: str, graph: Path) -> None:
    """Writes one tower of `model` to `graph`, as plain ONNX operators in float32.

    Changes the model: its attention to the eager kind, which traces to the pattern that fusions know, and of the image
    tower the last layer.
    """
    model.set_attn_implementation("eager")
    part, config = _vision(model) if tower == VISION else _text(model)
    export(part.train(False), config, graph, opset=OPSET)


def _vision(model: CLIPModel) -> tuple[torch.nn.Module, _VisionConfig]:
    with torch.device("meta"):  # It borrows its weights: none of its own are made.
        part = CLIPVisionModelWithProjection(model.config.vision_config)
    part.vision_model, part.visual_projection = model.vision_model, model.visual_projection
    layers = part.vision_model.encoder.layers
    layers[-1] = _ClassTokenOnly(layers[-1])
    return part, _VisionConfig(model.config.vision_config, task="feature-extraction")


def _text(model: CLIPModel) -> tuple[torch.nn.Module, _TextConfig]:
    with torch.device("meta"):
        part = CLIPTextModelWithProjection(model.config.text_config)
    part.text_model, part.text_projection = model.text_model, model.text_projection
    return part, _TextConfig(model.config.text_config, task="feature-extraction")


def tower_spec(tower: str, variants: dict[str, str], context_length: int, tokenizer: str) -> TowerSpec:
    """What the manifest says of an exported tower."""
    text = tower == TEXT
    return TowerSpec(
        input=_INPUTS[tower],
        output=_OUTPUTS[tower],
        variants=variants,
        context_length=context_length if text else None,
        tokenizer=tokenizer if text else None,
    )
