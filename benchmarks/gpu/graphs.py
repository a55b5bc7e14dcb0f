"""Graphs of converted models opened in the ways that are compared: as clipsrv does, and as onnxruntime could."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.gpu.setting import Setting
from clipsrv.machine import usable_cores
from clipsrv.manifest import TEXT, VISION, ModelManifest, load_manifest
from clipsrv.providers.provider import DevicePlan
from clipsrv.providers.table import provider
from clipsrv.runtime.choice import graph_file
from clipsrv.runtime.libraries import preload
from clipsrv.runtime.opening import open_encoder
from clipsrv.runtime.packing import pack
from clipsrv.specs import TowerSpec

#: A batch of pixels or ids to what the tower gives for it, both in the computer's memory.
Compute = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Graph:
    """One tower of one model in one precision, for the device of the setting."""

    model: str
    tower: str
    precision: str
    device: str
    file: Path
    spec: TowerSpec
    manifest: ModelManifest

    @property
    def plan(self) -> DevicePlan:
        return DevicePlan(self.device, usable_cores(), self.precision)

    def batch(self, size: int) -> NDArray[Any]:
        """Inputs as the tower takes them: noise for images, ids of a short text."""
        random = np.random.default_rng(0)
        if self.tower == TEXT:
            return random.integers(1, 300, (size, 16), np.int64)
        side = self.manifest.preprocess.crop_size
        return random.standard_normal((size, 3, side, side), np.float32)


def graph(setting: Setting, model: str, precision: str, tower: str = VISION) -> Graph:
    manifest = load_manifest(setting.models_dir / model)
    spec = manifest.towers[tower]
    file = setting.models_dir / model / graph_file(spec, setting.device, precision)
    return Graph(model, tower, precision, setting.device, file, spec, manifest)


def session(
    one: Graph, changes: Mapping[str, str] | None = None, options: ort.SessionOptions | None = None, name: str = ""
) -> ort.InferenceSession:
    """With clipsrv's options of the provider, changed. Raises RuntimeError if another provider took its place."""
    row = provider(one.device)
    if row.library:
        preload()
    if options is None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = usable_cores(), 4
    name = name or row.onnx_name
    given = {**row.options(one.plan), **(changes or {})} if name == row.onnx_name else dict(changes or {})
    made = ort.InferenceSession(str(one.file), options, providers=[(name, given)])
    if name not in made.get_providers():
        raise RuntimeError(f"{name} did not take: {made.get_providers()[0]} runs instead")
    return made


def fed(one: Graph, made: ort.InferenceSession, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    """What a session takes for a batch: packed, if it takes texts so."""
    return pack(batch)._asdict() if len(made.get_inputs()) > 1 else {one.spec.input: batch}


def as_served(one: Graph) -> Compute:
    """clipsrv's own encoder: unit vectors."""
    return open_encoder(one.file, one.spec, one.manifest.dimensions, one.plan).embed


def changed(one: Graph, **changes: str) -> Compute:
    made = session(one, changes)
    return lambda batch: made.run([one.spec.output], fed(one, made, batch))[0]


def io_bound(one: Graph, *, captured: bool = False) -> Compute:
    """Input and output stay where they are on the device between runs of a batch size; `captured` replays the launches
    of each size as one CUDA graph."""
    made = session(one, {"enable_cuda_graph": "1"} if captured else None)
    held: dict[int, tuple[Any, Any, Any]] = {}

    def compute(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        size = len(batch)
        if size not in held:
            taken = ort.OrtValue.ortvalue_from_numpy(batch, one.device, 0)
            given = ort.OrtValue.ortvalue_from_shape_and_type(
                [size, one.manifest.dimensions], np.float32, one.device, 0
            )
            binding = made.io_binding()
            binding.bind_ortvalue_input(one.spec.input, taken)
            binding.bind_ortvalue_output(one.spec.output, given)
            held[size] = taken, given, binding
        taken, given, binding = held[size]
        taken.update_inplace(batch)
        options = ort.RunOptions()
        if captured:
            options.add_run_config_entry("gpu_graph_id", str(size))
        made.run_with_iobinding(binding, options)
        result: NDArray[np.float32] = given.numpy()
        return result

    return compute


def two_in_flight(one: Graph) -> Compute:
    """Two batches at once, each in a session and a stream of its own: copies of one overlap the other's arithmetic."""
    both = [changed(one), changed(one)]
    pool = ThreadPoolExecutor(2)

    def compute(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate(list(pool.map(lambda run: run(batch), both)))

    return compute


def tensorrt(one: Graph) -> Compute:
    """TensorRT's provider, where its library is."""
    made = session(one, {"trt_fp16_enable": str(int(one.precision == "fp16"))}, name="TensorrtExecutionProvider")
    return lambda batch: made.run([one.spec.output], {one.spec.input: batch})[0]


def ways(one: Graph) -> Iterator[tuple[str, Callable[[], Compute], int]]:
    """What is compared: a name, what opens it, and batches that one call computes."""
    yield "as served", lambda: as_served(one), 1
    if one.device != "cuda":
        yield "two in flight", lambda: two_in_flight(one), 2
        return
    yield "launch by launch", lambda: changed(one), 1
    if one.precision == "fp32":
        yield "TF32", lambda: changed(one, use_tf32="1"), 1
    yield "I/O binding", lambda: io_bound(one), 1
    yield "CUDA graph of every size", lambda: io_bound(one, captured=True), 1
    yield "two in flight", lambda: two_in_flight(one), 2
    yield "TensorRT", lambda: tensorrt(one), 1
