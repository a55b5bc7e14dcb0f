"""The section of texts: their vectors and their speed on the device, packed in fp32, whole in fp16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.gpu.engine import rate
from benchmarks.gpu.graphs import as_served, graph
from benchmarks.gpu.setting import Row, Setting
from clipsrv.manifest import TEXT

_BATCHES = (1, 8, 36, 64)


def texts(setting: Setting) -> Iterator[Row]:
    """Texts of 16 tokens a second by batch, of the first model; and the largest difference of a component to the
    vectors that the CPU gives in fp32, as a list and each text alone."""
    model = setting.models[0]
    exact = graph(replace(setting, device="cpu"), model, "fp32", TEXT)
    ids = exact.batch(_BATCHES[-1])
    expected = as_served(exact)(ids)
    for precision in reversed(setting.precisions):
        one = graph(setting, model, precision, TEXT)
        compute = as_served(one)
        together, alone = compute(ids), np.concatenate([compute(row[None]) for row in ids])
        yield {
            "model": model,
            "precision": precision,
            "largest component, together": float(np.abs(together - expected).max()),
            "alone": float(np.abs(alone - expected).max()),
            **{f"batch {size}": size * rate(lambda: compute(ids[:size]), setting.seconds)  # noqa: B023 - called at once
               for size in _BATCHES},
        }  # fmt: skip
