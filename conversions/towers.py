"""One tower of a checkpoint to the graphs of its precisions. Knows nothing of checkpoints and manifests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clipsrv.manifest import VISION
from clipsrv.specs import PreprocessSpec
from conversions.export import export_tower
from conversions.families.family import FUSED, Exportable
from conversions.optimize import VARIANTS, RawGraph
from conversions.samples import pixel_samples
from conversions.texts import INT8


def write_tower(
    part: Exportable,
    tower: str,
    precisions: Sequence[str],
    kept: Mapping[str, Path],
    *,
    spec: PreprocessSpec,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Writes TOWER.PRECISION.onnx of each precision to `folder`, with its .data; returns the file names by precision.

    Graphs that are to be `kept` are copied: made again they might be of another recipe. `spec` is how images are made
    ready, those too that int8 learns from.
    """
    scratch = folder / "raw"
    scratch.mkdir()
    learns = tower == VISION and any(name.startswith(INT8) and name not in kept for name in precisions)
    samples = pixel_samples(spec, part.taken) if learns else None
    fusible = scratch / f"{tower}.fusible.onnx" if part.fusible is not None and FUSED in precisions else None
    raw = RawGraph(scratch / f"{tower}.onnx", part.heads, part.width, samples, fusible)
    say(f"Exporting the {tower} tower")
    export_tower(part, tower, raw.path)
    if fusible is not None and part.fusible is not None:
        export_tower(replace(part, module=part.fusible, through="optimum", packed=False), tower, fusible)
    names = {precision: f"{tower}.{precision}.onnx" for precision in precisions}
    for precision, name in names.items():
        if precision in kept:
            say(f"Keeping {tower} {precision} as it is there, so that stored vectors keep their id")
            graph = kept[precision]
            shutil.copyfile(graph, folder / name)
            shutil.copyfile(graph.with_name(f"{graph.name}.data"), folder / f"{name}.data")
        else:
            say(f"Writing {tower} {precision}")
            VARIANTS[precision](raw, folder / name)
    shutil.rmtree(scratch)
    return names
