"""The small model with weights that take memory, for what is about memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support.model import TEXT_TOWER, VISION_TOWER, vision_graph, write_manifest, write_model


def write_heavy_model(folder: Path, mib: int, *, seed: int = 0, data: bool = False) -> Path:
    """Writes the small model with a layer of so many MiB in its vision tower: inside the graph, or beside it as
    `data`, as converted models have it."""
    write_model(folder)
    model, rng = vision_graph(), np.random.default_rng(seed)
    last = model.graph.node[-1]
    inner, width = last.input[0], next(one for one in model.graph.initializer if one.name == last.input[1]).dims[0]
    hidden = mib * 2**20 // (2 * 4 * width)
    for name, shape in (("out", (width, hidden)), ("back", (hidden, width))):
        weights = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    last.input[0] = "narrow"
    del model.graph.node[-1]
    model.graph.node.extend(
        [helper.make_node("MatMul", [inner, "out"], ["wide"]), helper.make_node("MatMul", ["wide", "back"], ["narrow"])]
    )
    model.graph.node.append(last)
    graph = folder / "vision.fp32.onnx"
    onnx.save(model, graph, save_as_external_data=data, location=f"{graph.name}.data", size_threshold=1024)
    (folder / "manifest.json").unlink()
    write_manifest(folder, {"vision": VISION_TOWER, "text": TEXT_TOWER})
    return folder
