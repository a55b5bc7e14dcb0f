"""The section of `auto`: what it takes on this machine, what it says of it, and what asking costs a start."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.gpu.setting import Row, Setting
from clipsrv.models.loading import load_model
from clipsrv.settings import ModelSettings


def auto(setting: Setting) -> Iterator[Row]:
    """Each model opened by the device's name and by `auto`, in each precision, the second of two times: the first loads
    the device's libraries."""
    for model in setting.models:
        for precision in setting.precisions:
            for asked in (setting.device, "auto"):
                for _ in range(2):
                    begun = time.monotonic()
                    opened = load_model(setting.models_dir / model, ModelSettings(asked, precision))
                    seconds = time.monotonic() - begun
                    opened.close()
                yield {
                    **{"model": model, "precision": precision, "asked for": asked, "took": opened.device},
                    **{"opened, s": seconds, "said": "; ".join(map(str, opened.trials))},
                }
