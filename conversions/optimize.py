"""Exported graph to the graphs that are served, one per variant. docs/converting.md has the measurements.

fp32 keeps to plain ONNX operators, so that every provider runs it whole; fp16, for CUDA, is fused first; int8 is made
from fp32, once for onnxruntime's own kernels and once for OpenVINO. Weights go to a file beside the graph (.data),
which onnxruntime maps into memory instead of parsing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from conversions.activations import Samples
from conversions.families.family import FUSED
from conversions.quantize import Quantized

#: Smaller tensors stay in the graph: shapes and scalars are read while it is being loaded.
_INLINE_BYTES = 1024


@dataclass(frozen=True)
class RawGraph:
    """A tower as exported: float32, plain ONNX. Attention heads and width are what fusions must know; of `samples`
    int8 learns what its layers will see. `fusible` is the same tower in the form that fusions know, if not that."""

    path: Path
    heads: int
    width: int
    samples: Samples | None = None
    fusible: Path | None = None

    @cached_property
    def quantized(self) -> Quantized:
        """The folded graph in 8 bits: worked out once, written for onnxruntime and for OpenVINO."""
        folded = self.path.with_suffix(".folded.onnx")
        fold(self, folded)
        return Quantized.of(folded, self.samples)


def fold(raw: RawGraph, out: Path) -> None:
    """fp32: constants folded and shape arithmetic removed by onnxruntime's basic level; results equal to the bit."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{out.name}.data")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_INLINE_BYTES)
    )
    ort.InferenceSession(str(raw.path), options, providers=["CPUExecutionProvider"])
    _drop_unused_domains(out)


def fuse_half(raw: RawGraph, out: Path) -> None:
    """fp16: attention, normalisation and QuickGelu fused, then weights and arithmetic halved; inputs and outputs
    stay float32, so the server feeds every precision alike."""
    fused = optimize_model(
        str(raw.fusible or raw.path),
        model_type="clip",
        num_heads=raw.heads,
        hidden_size=raw.width,
        optimization_options=FusionOptions("clip"),
        opt_level=0,
    )
    fused.convert_float_to_float16(keep_io_types=True)
    fused.save_model_to_file(str(out), use_external_data_format=True, all_tensors_to_one_file=True)


def _rows(raw: RawGraph, out: Path) -> None:
    raw.quantized.for_onnxruntime(out)


def _unpacked(raw: RawGraph, out: Path) -> None:
    raw.quantized.for_openvino(out)


#: Variant to what makes it, in the order in which they are made. int8 is for plain onnxruntime.
VARIANTS: dict[str, Callable[[RawGraph, Path], None]] = {
    "fp32": fold,
    FUSED: fuse_half,
    "int8": _rows,
    "int8-openvino": _unpacked,
}


def _drop_unused_domains(graph: Path) -> None:
    """onnxruntime writes down every operator set it knows; other runtimes refuse those they do not."""
    model = onnx.load(graph, load_external_data=False)
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, graph)
