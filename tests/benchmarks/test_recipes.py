"""The recipes of int8 whose errors are compared: one of them is the converter's, and outliers are where they say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.recipes import NOW, RECIPES, line, plant, quantized, vectors
from conversions.activations import Samples

DEMO = Path(__file__).parents[2] / "onnx_models" / "demo" / "vision.fp32.onnx"
PIXELS = np.random.default_rng(0).standard_normal((4, 3, 224, 224), np.float32)
SAMPLES = Samples([PIXELS], taken=0)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(DEMO.with_name(f"{DEMO.name}.data"), folder)
    return Path(shutil.copy(DEMO, folder))


def test_the_recipe_before_the_subtraction_gives_what_the_converter_gives_without_it(
    graph: Path, tmp_path: Path
) -> None:
    two_rows = next(one for one in RECIPES if one.two_rows and not one.subtracted)
    for name, recipe in (("ours", two_rows), ("now", NOW)):
        (tmp_path / name).mkdir()
        quantized(graph, SAMPLES, recipe, tmp_path).for_onnxruntime(tmp_path / name / "int8.onnx")
    for file in ("int8.onnx", "int8.onnx.data"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "now" / file).read_bytes()


def test_layers_that_a_recipe_leaves_in_fp32_keep_their_matrices(graph: Path, tmp_path: Path) -> None:
    quantized(graph, SAMPLES, replace(RECIPES[0], float32=frozenset({"activation"})), tmp_path).for_onnxruntime(
        tmp_path / "int8.onnx"
    )
    before, after = onnx.load(graph), onnx.load(tmp_path / "int8.onnx")
    kept = [node for node in after.graph.node if node.op_type == "MatMul" and "fc2" in node.name]
    assert len(kept) == sum("fc2" in node.name and node.op_type == "MatMul" for node in before.graph.node) > 0
    assert not any(node.op_type == "MatMulIntegerToFloat" and "fc2" in node.name for node in after.graph.node)


def test_outliers_are_planted_in_so_many_channels_of_every_normalisation_that_layers_read(
    graph: Path, tmp_path: Path
) -> None:
    plant(graph, 3, tmp_path / "planted.onnx")
    gains = [
        {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
        for path in (graph, tmp_path / "planted.onnx")
    ]
    changed = {name: after / gains[0][name] for name, after in gains[1].items() if (after != gains[0][name]).any()}
    assert changed
    for name, ratio in changed.items():
        assert "norm" in name
        assert ((ratio > 19) & (ratio < 51)).sum() == 3 == (ratio != 1).sum()


def test_a_graph_beside_itself_has_no_error(graph: Path) -> None:
    found = np.random.default_rng(0).standard_normal((89, 8), np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert line("itself", found, found, 2**20) == "| itself | 0.00% | 0.00% | 100.0% | 1 |"
    np.testing.assert_allclose(vectors(graph, PIXELS), vectors(graph, PIXELS, as_written=True), atol=1e-5)
