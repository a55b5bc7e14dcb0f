"""The small model of all tests: a real model folder that runs in well under a millisecond, made with onnx.helper.

Vectors tell inputs apart: the vision tower is a fixed random projection of average-pooled pixels, the text tower one
of the running sum of token vectors, read at the first end of text. So a swapped answer shows, and as in CLIP itself
padding after the end of text changes nothing.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clipsrv.manifest import ModelManifest
from clipsrv.models.loading import load_model
from clipsrv.models.model import Model
from clipsrv.runtime.encoder import Encoder, SessionEncoder
from clipsrv.runtime.vectors import Vectors
from clipsrv.settings import ImageLimits, ModelSettings
from clipsrv.specs import FileSpec, PreprocessSpec, TowerSpec

NAME, DIMENSIONS, SIZE = "tiny", 64, 32
SPEC = PreprocessSpec(
    shortest_edge=SIZE,
    crop_size=SIZE,
    image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711),
)
VISION_TOWER = TowerSpec("pixel_values", "image_embeds", {"fp32": "vision.fp32.onnx"})
TEXT_TOWER = TowerSpec("input_ids", "text_embeds", {"fp32": "text.fp32.onnx"}, 77, "tokenizer.json")
_OPSET, _GRID, _VOCABULARY, _BEGIN = 17, 8, 49408, 49406
_TEXTS = ["batch", "length"]
_TOKENIZER = Path(__file__).parents[1] / "golden" / "tokenizer_openai.json.xz"


def make_model(encoder: Encoder | None = None) -> Model:
    """The small model, open; with `encoder` in the place of its vision tower. Closing it closes it for nobody else."""
    return replace(
        _opened(),
        image_encoder=encoder or SessionEncoder(session(vision_graph), VISION_TOWER, DIMENSIONS),
        text_encoder=SessionEncoder(session(text_graph), TEXT_TOWER, DIMENSIONS),
    )


def truth(blob: bytes) -> Vectors:
    """The vector that a server of the small model must give for `blob`: what the model itself gives for it alone."""
    model = make_model()
    return model.image_encoder.embed(model.read_image(blob, ImageLimits())[None])[0]


class CountingTexts(SessionEncoder):
    """The text tower of the small model, which counts what it is given."""

    def __init__(self, *, packed: bool = False) -> None:
        super().__init__(session(packed_text_graph if packed else text_graph), TEXT_TOWER, DIMENSIONS)
        self.texts = 0

    def embed(self, batch: NDArray[np.generic]) -> Vectors:
        self.texts += len(batch)
        return super().embed(batch)


@cache
def session(graph: Callable[[], onnx.ModelProto]) -> ort.InferenceSession:
    """A session of one thread of one of the graphs below: one for all, since it has no state."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph().SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def _opened() -> Model:
    with TemporaryDirectory() as folder:
        return load_model(write_model(Path(folder) / NAME), ModelSettings(device="cpu", threads=1))


def write_model(folder: Path, *, text: bool = True, weight: float = 1.0, weights_sha256: str = "0" * 64) -> Path:
    """Writes the model folder; `weight` scales the vision tower's projection (0 gives zeros, nan gives nan).

    Another `weights_sha256` makes another embedding_id.
    """
    folder.mkdir(parents=True)
    onnx.save(vision_graph(weight), folder / "vision.fp32.onnx")
    towers = {"vision": VISION_TOWER}
    if text:
        onnx.save(text_graph(), folder / "text.fp32.onnx")
        (folder / "tokenizer.json").write_bytes(lzma.decompress(_TOKENIZER.read_bytes()))
        towers["text"] = TEXT_TOWER
    write_manifest(folder, towers, weights_sha256=weights_sha256)
    return folder


def write_manifest(
    folder: Path, towers: dict[str, TowerSpec], dimensions: int = DIMENSIONS, weights_sha256: str = "0" * 64
) -> None:
    """The manifest of whatever files lie in `folder`."""
    manifest = ModelManifest(
        name=folder.name,
        dimensions=dimensions,
        preprocess=SPEC,
        towers=towers,
        files={path.name: describe(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"},
        source={"repo": "tests", "revision": "1", "license": "MIT", "weights_sha256": weights_sha256},
        created="2026-01-01T00:00:00+00:00",
    )
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")


def describe(path: Path) -> FileSpec:
    blob = path.read_bytes()
    return FileSpec(hashlib.sha256(blob).hexdigest(), len(blob))


def vision_graph(weight: float = 1.0) -> onnx.ModelProto:
    step = SIZE // _GRID
    projection = weight * _random((3 * _GRID * _GRID, DIMENSIONS))
    nodes = [
        helper.make_node("AveragePool", ["pixel_values"], ["pooled"], kernel_shape=[step, step], strides=[step, step]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["image_embeds"]),
    ]
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    return _model(nodes, [pixels], "image_embeds", {"projection": projection})


def text_graph() -> onnx.ModelProto:
    return _text_model([helper.make_node("Gather", ["table", "input_ids"], ["tokens"])], {"input_ids": _TEXTS}, {})


def packed_text_graph() -> onnx.ModelProto:
    """The same tower as it takes packed texts: token vectors of the rows, summed along each text's path."""
    constants: dict[str, NDArray[np.generic]] = {
        "begin": _random((_VOCABULARY, 8))[_BEGIN : _BEGIN + 1],
        "flat": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["input_ids", "flat"], ["all_ids"]),
        helper.make_node("Gather", ["all_ids", "places"], ["row_ids"]),
        helper.make_node("Gather", ["table", "row_ids"], ["computed"]),
        helper.make_node("Concat", ["begin", "computed"], ["rows"], axis=0),
        helper.make_node("Gather", ["rows", "paths"], ["tokens"]),
    ]
    return _text_model(nodes, {"input_ids": _TEXTS, "paths": _TEXTS, "places": ["rows"]}, constants)


def _text_model(
    nodes: list[onnx.NodeProto], shapes: Mapping[str, list[str]], constants: Mapping[str, NDArray[np.generic]]
) -> onnx.ModelProto:
    """From `nodes` that give the vectors of each text's tokens: they are summed up to where a text ends."""
    shared: dict[str, NDArray[np.generic]] = {
        "table": _random((_VOCABULARY, 8)),
        "projection": _random((8, DIMENSIONS)),
        "axis": np.array(1, np.int64),
    }
    pooling = [
        helper.make_node("CumSum", ["tokens", "axis"], ["running"]),
        helper.make_node("Tanh", ["running"], ["states"]),
        helper.make_node("ArgMax", ["input_ids"], ["ends"], axis=1, keepdims=1),
        helper.make_node("GatherND", ["states", "ends"], ["last"], batch_dims=1),
        helper.make_node("MatMul", ["last", "projection"], ["text_embeds"]),
    ]
    sources = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in shapes.items()]
    return _model([*nodes, *pooling], sources, "text_embeds", {**shared, **constants})


def _model(
    nodes: list[onnx.NodeProto],
    sources: list[onnx.ValueInfoProto],
    output: str,
    constants: dict[str, NDArray[np.generic]],
) -> onnx.ModelProto:
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", DIMENSIONS])
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", sources, [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _random(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal(shape, np.float32)
