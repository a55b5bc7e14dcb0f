"""The section of texts: their vectors and their speed on the device, packed in fp32, whole in fp16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.gpu.engine import rate
from benchmarks.gpu.graphs import as_served, graph
from benchmarks.gpu.setting import Row, Setting
from benchmarks.phrases import make_texts
from clipsrv.manifest import TEXT
from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings

_BATCHES = (1, 8, 36, 64)


def texts(setting: Setting) -> Iterator[Row]:
    """Searches a second by batch, of the first model; and the largest difference of a component to the vectors that the
    CPU gives in fp32, as a list and each text alone."""
    model = setting.models[0]
    with_words = load_model(setting.models_dir / model, ModelSettings("cpu", "fp32"))
    assert with_words.tokenizer
    assert with_words.text_encoder
    tokens = [with_words.tokenizer.encode(text) for text in make_texts(_BATCHES[-1])]
    ids = np.stack([one.ids[: max(one.length for one in tokens)] for one in tokens])
    expected = with_words.text_encoder.embed(ids)
    with_words.close()
    for precision in reversed(setting.precisions):
        compute = as_served(graph(setting, model, precision, TEXT))
        together, alone = compute(ids), np.concatenate([compute(row[None]) for row in ids])
        yield {
            "model": model,
            "precision": precision,
            "largest component, together": float(np.abs(together - expected).max()),
            "alone": float(np.abs(alone - expected).max()),
            **{f"batch {size}": size * rate(lambda: compute(ids[:size]), setting.seconds)  # noqa: B023 - called at once
               for size in _BATCHES},
        }  # fmt: skip
