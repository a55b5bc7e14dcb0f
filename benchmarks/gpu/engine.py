"""Sections of the model alone, beside PyTorch: where it runs, what it gives, how fast, what it does without memory."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.gpu.graphs import Compute, Graph, as_served, changed, fed, graph, session, ways
from benchmarks.gpu.setting import Row, Setting
from clipsrv.errors import ClipsrvError, OutOfMemoryError
from clipsrv.images.decode import decode_image
from clipsrv.images.preprocess import preprocess_image
from clipsrv.machine import usable_cores
from clipsrv.manifest import VISION
from clipsrv.providers.provider import DevicePlan
from clipsrv.providers.table import provider
from clipsrv.runtime.recorded import LARGEST
from clipsrv.runtime.session import first_line, open_session
from conversions.golden import golden_images

#: Batches that are compiled: each takes PyTorch some ten seconds.
_COMPILED = (1, 8, 64)


def providers(setting: Setting) -> Iterator[Row]:
    """Every graph: whether clipsrv's own check lets it start, and the provider of each node as onnxruntime's profile
    of one run has it."""
    for model in setting.models:
        for precision in setting.precisions:
            for tower in ("vision", "text"):
                one = graph(setting, model, precision, tower)
                open_session(one.file, one.plan)
                yield {
                    "model": model,
                    "tower": tower,
                    "precision": precision,
                    "check": "passed",
                    **_nodes(setting, one),
                }


def parity(setting: Setting) -> Iterator[Row]:
    """Vectors of the golden images on the device beside PyTorch's in fp32 on the same device, TF32 off: the largest
    difference of a component, and the largest error as a share of the mean distance between two of the images."""
    from benchmarks.gpu.torch_model import torch_images

    for model in setting.models:
        preprocess = graph(setting, model, "fp32").manifest.preprocess
        pixels = np.stack(
            [preprocess_image(decode_image(image.blob), preprocess) for image in golden_images()[: setting.golden]]
        )
        exact = _in_batches(torch_images(setting, model, "fp32"), pixels)
        apart = np.linalg.norm(exact[:, None] - exact[None], axis=-1).sum() / (len(exact) * (len(exact) - 1))
        for name, opened in _computed(setting, model):
            error = _in_batches(opened, pixels) - exact
            worst = np.linalg.norm(error, axis=-1)
            yield {
                "model": model,
                "vectors": name,
                "images": len(pixels),
                "largest component": float(np.abs(error).max()),
                "largest error / distance": float(worst.max() / apart),
                "mean error / distance": float(worst.mean() / apart),
            }


def engine(setting: Setting) -> Iterator[Row]:
    """Images a second by batch of the first model, clipsrv's engine in every way beside PyTorch eager."""
    yield from _speeds(setting, setting.models[0])


def engine_large(setting: Setting) -> Iterator[Row]:
    """The same of the other models."""
    for model in setting.models[1:]:
        yield from _speeds(setting, model)


def compiled(setting: Setting) -> Iterator[Row]:
    """The first model compiled by PyTorch (inductor with CUDA graphs), for a few batches."""
    from benchmarks.gpu.torch_model import torch_images

    model = setting.models[0]
    for precision in reversed(setting.precisions):
        for size in _COMPILED:
            opened = torch_images(setting, model, precision, compiled=True)
            yield _speed(setting, model, precision, "PyTorch compiled", opened, 1, [size])


def memory(setting: Setting) -> Iterator[Row]:
    """Batches while something else holds nearly all of the card's memory, one of which would be recorded, and the same
    once it has let go."""
    import torch

    one = graph(setting, setting.models[0], setting.precisions[-1])
    compute = as_served(one)
    batch = one.batch(setting.batches[-1])
    before = compute(batch[:4])
    torch.empty(1, device=setting.device)
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 8 * 2**20, dtype=torch.uint8, device=setting.device)
    for size in (LARGEST, len(batch)):
        try:
            compute(batch[:size])
            seen = "computed all the same"
        except OutOfMemoryError as error:
            seen = f"refused: {error.message}"
        except ClipsrvError as error:
            seen = f"failed otherwise: {error.message} ({str(error.__cause__)[:300]})"
        yield {"moment": f"{free >> 20} MiB taken by another", "batch": size, "seen": seen}
    del hog
    torch.cuda.empty_cache()
    for size in (LARGEST, len(batch)):
        same = float(np.abs(compute(batch[:size])[:4] - before).max())
        yield {"moment": "given back", "batch": size, "seen": f"computed; components differ by at most {same:.1e}"}


def _computed(setting: Setting, model: str) -> Iterator[tuple[str, Compute]]:
    """What is held against PyTorch in fp32."""
    from benchmarks.gpu.torch_model import torch_images

    exact = graph(setting, model, "fp32")
    for precision in setting.precisions:
        yield f"clipsrv {precision}", as_served(graph(setting, model, precision))
        if setting.device == "cuda":
            yield f"clipsrv {precision}, launch by launch", changed(graph(setting, model, precision))
    yield "clipsrv fp32 on the CPU", _on_cpu(exact)
    if setting.device == "cuda":
        yield "clipsrv fp32, TF32 on", changed(exact, use_tf32="1")
        yield "PyTorch fp32, TF32 on", torch_images(setting, model, "fp32", tf32=True)
        yield "PyTorch fp16", torch_images(setting, model, "fp16")


def _nodes(setting: Setting, one: Graph) -> Row:
    options = ort.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 4
    options.profile_file_prefix = str(Path(setting.work, "nodes"))
    made = session(one, options=options)
    made.run(None, fed(one, made, one.batch(2)))
    profile = Path(made.end_profiling())
    events: list[dict[str, Any]] = json.loads(profile.read_text())
    profile.unlink()
    ran = {event["name"]: event["args"] for event in events if "provider" in event.get("args", {})}
    ours = provider(one.device).onnx_name
    elsewhere = Counter(args["op_name"] for args in ran.values() if args["provider"] != ours)
    return {
        "nodes on it": len(ran) - elsewhere.total(),
        "nodes elsewhere": elsewhere.total(),
        "which": ", ".join(f"{count} {name}" for name, count in elsewhere.items()),
    }


def _on_cpu(one: Graph) -> Compute:
    made = open_session(one.file, DevicePlan("cpu", usable_cores()))

    def compute(batch: Any) -> Any:
        features = made.run([one.spec.output], fed(one, made, batch))[0]
        return features / np.linalg.norm(features, axis=-1, keepdims=True)

    return compute


def _in_batches(compute: Compute, pixels: Any) -> Any:
    rows = np.concatenate([compute(pixels[begin : begin + 16]) for begin in range(0, len(pixels), 16)])
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _speeds(setting: Setting, model: str) -> Iterator[Row]:
    from benchmarks.gpu.torch_model import torch_images

    for precision in reversed(setting.precisions):
        for name, opened, calls in ways(graph(setting, model, precision)):
            try:
                yield _speed(setting, model, precision, name, opened(), calls, setting.batches)
            except Exception as error:  # noqa: BLE001 - a way that this machine has not, in whatever words
                yield {"model": model, "precision": precision, "way": name, "failed": first_line(error)}
        for tf32 in (False, True) if precision == "fp32" and setting.device == "cuda" else (False,):
            name = f"PyTorch eager{', TF32' if tf32 else ''}"
            compute = torch_images(setting, model, precision, tf32=tf32)
            yield _speed(setting, model, precision, name, compute, 1, setting.batches)


def _speed(setting: Setting, model: str, precision: str, name: str, compute: Compute, calls: int, batches: Any) -> Row:
    one = graph(setting, model, precision, VISION)
    return {
        **{"model": model, "precision": precision, "way": name},
        **{f"batch {size}": calls * size * rate(lambda: compute(pixels), setting.seconds)  # noqa: B023 - called at once
           for size in batches for pixels in [one.batch(size)]},
    }  # fmt: skip


def rate(step: Callable[[], object], seconds: float) -> float:
    """Calls a second, after three that do not count: PyTorch records its CUDA graph in the third."""
    for _ in range(3):
        step()
    begun, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds:
        step()
        count += 1
    return count / elapsed
