"""What this machine's cores can do at most through onnxruntime, and how much of that a graph uses by operator.

Multiply-adds are counted from the shapes that onnxruntime's profiler saw, two operations each. Knows no servers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clipsrv.runtime.session import SPINNING

#: Rows, inner length and columns of the one large product: 16 MiB a side, so that neither stays in a core's cache and
#: reading it is next to nothing beside the arithmetic.
_SIDE = 2048
#: Bytes that are copied to tell the bandwidth: many times what caches hold.
_COPIED = 1 << 28
_PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat"}
_CONVOLUTIONS = {"Conv", "FusedConv"}
#: Operators with products inside that nobody has taught `operations` to count.
_UNKNOWN = {"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention", "Einsum", "QLinearMatMul", "QGemm"}


@dataclass(frozen=True)
class Operator:
    """Of all nodes of one kind in one run of a graph: seconds, and operations of their multiply-adds."""

    name: str
    seconds: float
    operations: float


class Peak:
    """Operations a second of one large product, on `threads` threads: fp32, or unsigned by signed 8 bits."""

    def __init__(self, precision: str, threads: int) -> None:
        """Raises KeyError for a precision other than fp32 and int8."""
        self._session = ort.InferenceSession(_product(precision), _options(threads), providers=["CPUExecutionProvider"])
        left: dict[str, NDArray[Any]] = {
            "fp32": np.random.default_rng(0).standard_normal((_SIDE, _SIDE), np.float32),
            "int8": np.random.default_rng(0).integers(0, 255, (_SIDE, _SIDE), np.uint8),
        }
        self._inputs = {"left": left[precision]}
        self._session.run(None, self._inputs)

    def measure(self, seconds: float = 0.5) -> float:
        """The fastest of the products that fit into these seconds; at least two."""
        begin, best, count = time.perf_counter(), math.inf, 0
        while time.perf_counter() - begin < seconds or count < 2:
            start = time.perf_counter()
            self._session.run(None, self._inputs)
            best, count = min(best, time.perf_counter() - start), count + 1
        return 2 * _SIDE**3 / best


def bandwidth(threads: int, times: int = 3) -> float:
    """Bytes a second, read and written together, of `threads` threads that copy what no cache holds; the best of
    so many `times`."""
    pairs = [(np.ones(_COPIED // 8), np.ones(_COPIED // 8)) for _ in range(threads)]
    best = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(times):
            begin = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
            best = min(best, time.perf_counter() - begin)
    return 2 * threads * _COPIED / best


def operators(graph: Path, inputs: Mapping[str, NDArray[Any]], runs: int = 5) -> list[Operator]:
    """What a run of a graph on one thread consists of, the median of `runs` after one that does not count, the longest
    first. What onnxruntime spends between operators is one of them."""
    with TemporaryDirectory(prefix="clipsrv-bench-") as folder:
        options = _options(1)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        for _ in range(runs + 1):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    return by_operator(events, runs)


def by_operator(events: Sequence[Mapping[str, Any]], runs: int) -> list[Operator]:
    """Of the events of a profile that holds `runs` runs and one before them."""
    whole = [event for event in events if event["cat"] == "Session" and event["name"] == "model_run"][-runs:]
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    found: list[dict[str, tuple[float, float]]] = []
    for run in whole:
        start, end = run["ts"], run["ts"] + run["dur"]
        kinds: dict[str, tuple[float, float]] = {}
        for node in nodes:
            if start <= node["ts"] <= end:
                kind, so_far = node["args"]["op_name"], kinds.get(node["args"]["op_name"], (0.0, 0.0))
                kinds[kind] = (so_far[0] + node["dur"] / 1e6, so_far[1] + operations(node["args"]))
        kinds["between operators"] = (run["dur"] / 1e6 - sum(seconds for seconds, _ in kinds.values()), 0.0)
        found.append(kinds)
    median = sorted(found, key=lambda kinds: sum(seconds for seconds, _ in kinds.values()))[len(found) // 2]
    every = [Operator(name, seconds, counted) for name, (seconds, counted) in median.items()]
    return sorted(every, key=lambda one: one.seconds, reverse=True)


def operations(node: Mapping[str, Any]) -> float:
    """Two for each multiply-add of a node, from the shapes that the profiler saw; 0 of what has no products.

    Raises ValueError for an operator that has products and is not counted here.
    """
    kind = node["op_name"]
    if kind in _UNKNOWN:
        raise ValueError(f"nobody knows how to count {kind}")
    if kind not in _PRODUCTS | _CONVOLUTIONS:
        return 0.0
    shapes, out = [_shape(one) for one in node["input_type_shape"]], _shape(node["output_type_shape"][0])
    if kind in _CONVOLUTIONS:
        return 2.0 * math.prod(out) * math.prod(shapes[1][1:])
    # Rows times the inner length is what the left side holds, whichever way round; the right one, where it is constant,
    # was packed and is not in the profile.
    return 2.0 * math.prod(shapes[0]) * out[-1]


def _shape(typed: Mapping[str, list[int]]) -> list[int]:
    (shape,) = typed.values()
    return shape


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    for entry, value in SPINNING.items():
        options.add_session_config_entry(entry, value)
    return options


def _product(precision: str) -> bytes:
    """A graph of one product with a constant matrix, as a model's are."""
    kind, type_in, type_out, dtype = {
        "fp32": ("MatMul", TensorProto.FLOAT, TensorProto.FLOAT, "float32"),
        "int8": ("MatMulInteger", TensorProto.UINT8, TensorProto.INT32, "int8"),
    }[precision]
    graph = helper.make_graph(
        [helper.make_node(kind, ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", type_in, [_SIDE, _SIDE])],
        [helper.make_tensor_value_info("out", type_out, [_SIDE, _SIDE])],
        [numpy_helper.from_array(np.ones((_SIDE, _SIDE)).astype(dtype), "right")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()
