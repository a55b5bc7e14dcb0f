"""What decides how fast a model is and how much memory it takes: its architecture, whatever its weights.

Pure facts and arithmetic; docs/models.md says how they were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Shape:
    """`parameters` of both towers in millions. Speed of the image tower on a CPU in `fp32` and `int8`, beside
    vit-b-32's in fp32; GiB of memory that a process held which had both towers open in fp32. None: not measured."""

    parameters: float
    fp32: float | None = None
    int8: float | None = None
    memory: float | None = None


#: The slowest that is still of use on a CPU, beside vit-b-32.
_SLOWEST = 0.1

SHAPES = MappingProxyType(
    {
        "b-32": Shape(151.3, 1.0, 3.8, 0.58),
        "b-16": Shape(149.6, 0.30, 1.1, 0.65),
        "l-14": Shape(427.6, 0.06, 0.24, 1.78),
        "l-14-336": Shape(427.9, 0.02, 0.07, 2.50),
        "h-14": Shape(986.1),
        "siglip-b-16-224": Shape(203.2, 0.25, 0.71, 0.80),
        # Its image tower is that of b-32.
        "xlm-roberta-b-32": Shape(366.1, 1.0, 3.8),
        "siglip2-b-16-256": Shape(375.2, 0.19, 0.54, 0.92),
        "siglip2-b-32-256": Shape(376.9, 0.73, 2.1, 0.91),
        "siglip2-so400m-14-384": Shape(1136.0),
    }
)


def memory_to_convert(weight_bytes: int) -> int:
    """Bytes a conversion takes at most: the weights, a tower's graph in two forms, and PyTorch itself."""
    return 600_000_000 + 4 * weight_bytes


def fits(shape: Shape, memory: int, *, on_cpu: bool) -> bool:
    """Whether a machine with `memory` bytes can convert and serve it, and on a CPU fast enough to be of use."""
    if memory_to_convert(int(shape.parameters * 4e6)) > memory:
        return False
    return not on_cpu or (shape.fp32 is not None and shape.fp32 >= _SLOWEST)
