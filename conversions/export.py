"""PyTorch to ONNX through Optimum: one graph per tower, projection included, batch (and text length) dynamic.

Text takes ids only: attention is causal and the vector is taken at the end-of-text token, so what is padded behind
it cannot change it and no attention mask is needed. verify.py proves that for every conversion.
"""

from __future__ import annotations

from pathlib import Path

import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import CLIPTextWithProjectionOnnxConfig, CLIPVisionModelOnnxConfig
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from clipsrv.manifest import TEXT, VISION, TowerSpec

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


def export_tower(model: CLIPModel, tower: str, graph: Path) -> None:
    """Writes one tower of `model` to `graph`, as plain ONNX operators in float32.

    Changes the model's attention to the eager kind, which traces to the pattern that fusions know.
    """
    model.set_attn_implementation("eager")
    part, config = _vision(model) if tower == VISION else _text(model)
    export(part.train(False), config, graph, opset=OPSET)


def _vision(model: CLIPModel) -> tuple[torch.nn.Module, _VisionConfig]:
    with torch.device("meta"):  # It borrows its weights: none of its own are made.
        part = CLIPVisionModelWithProjection(model.config.vision_config)
    part.vision_model, part.visual_projection = model.vision_model, model.visual_projection
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
