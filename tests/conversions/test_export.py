"""What the exporter leaves out: the last layer of the image tower is computed where the vector is taken, only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from transformers import CLIPModel

from clipsrv.manifest import VISION
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.session import open_session
from conversions.export import clip_vision, export_tower
from conversions.families.family import Exportable

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and the exporters warn of their own doings


def _tokens(graph: Path) -> list[object]:
    """How many tokens each layer's MLP sees, first layer first."""
    inferred = SymbolicShapeInference.infer_shapes(onnx.load(graph), auto_merge=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.value_info}
    middles = [node.output[0] for node in inferred.graph.node if "mlp/fc1/MatMul" in node.name]
    return [shapes[name][1].dim_value for name in middles]


def test_the_last_layer_of_the_image_tower_computes_the_class_token_alone(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = CLIPModel.from_pretrained(tiny_checkpoint).train(False)
    pixels = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.get_image_features(pixel_values=pixels).numpy()
    model.set_attn_implementation("eager")
    export_tower(Exportable(clip_vision(model), heads=4, width=64), VISION, tmp_path / "vision.onnx")
    assert _tokens(tmp_path / "vision.onnx") == [50, 1]
    session = open_session(tmp_path / "vision.onnx", DevicePlan("cpu", 1))
    (features,) = session.run(None, {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(features, expected, atol=1e-5)
