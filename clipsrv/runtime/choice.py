"""What will run for what was asked: the devices to try, the precision, the graph. Refuses rather than replaces."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import onnxruntime as ort

from clipsrv.errors import DeviceError
from clipsrv.processor import CANNOT_TELL, Processor
from clipsrv.providers.instructions import Instructions
from clipsrv.providers.provider import PRECISIONS, Arithmetic, DevicePlan
from clipsrv.providers.table import OTHERWISE, PROVIDERS, auto_order, cure, provider
from clipsrv.specs import TowerSpec

#: Error relative to the mean distance between images up to which `auto` may take a faster precision.
AUTO_BOUND = 0.02


def candidate_devices(device: str) -> list[str]:
    """Devices to try for the one asked for, best first. Raises DeviceError if this onnxruntime has none of them."""
    available = set(ort.get_available_providers())
    if device == "auto":
        return [row.device for row in auto_order() if row.onnx_name in available]
    row = provider(device)
    if row.onnx_name not in available:
        raise DeviceError(
            f"--device {device} is not possible: this onnxruntime {ort.__version__} has no {row.onnx_name}. "
            f"{cure(row)} {OTHERWISE}"
        )
    return [row.device]


def choose_precision(
    asked: str, device: str, tower: TowerSpec, cpu: Processor, *, errors: Mapping[str, float] = MappingProxyType({})
) -> str:
    """The precision that will run for the one asked for. Raises DeviceError if device, CPU or model cannot give it.

    `errors` are the measured errors of the model's variants relative to the mean distance between images. `auto` takes
    a precision that the device marks so if its error was measured and is at most AUTO_BOUND, and fp32 otherwise: what
    changes vectors more is only ever asked for.
    """
    precisions = provider(device).precisions
    if asked == "auto":
        for name, arithmetic in precisions.items():
            if arithmetic.auto and arithmetic.graph in tower.variants and errors.get(name, 1.0) <= AUTO_BOUND:
                return name
        return "fp32"
    if asked not in PRECISIONS:
        raise DeviceError(f"There is no precision {asked!r}; it must be one of auto, {', '.join(PRECISIONS)}.")
    if asked not in precisions:
        able = [row for row in PROVIDERS if asked in row.precisions]
        alone = len(able) == 1 and able[0].onnx_name not in ort.get_available_providers()
        hint = f". {cure(able[0])} Here" if alone else ";"
        raise DeviceError(
            f"--precision {asked} needs --device {' or '.join(row.device for row in able)}{hint} "
            f"--device {device} computes {', '.join(precisions)}."
        )
    if precisions[asked].graph not in tower.variants:
        raise DeviceError(
            f"--precision {asked} for --device {device} is not in this model folder "
            f"(it has {', '.join(sorted(tower.variants))}). "
            f"Convert it with python -m conversions NAME --precision {asked}."
        )
    if (needs := precisions[asked].needs) and (refusal := _refusal(needs, cpu)):
        raise DeviceError(f"--precision {asked}: {refusal}")
    return asked


def variant(device: str, precision: str) -> str:
    """What vectors of a precision on a device are known by: a part of embedding_id."""
    return _arithmetic(device, precision).variant


def graph_file(tower: TowerSpec, device: str, precision: str) -> str:
    """The tower's graph; a tower without one for the precision runs fp32."""
    return tower.variants.get(_arithmetic(device, precision).graph, tower.variants["fp32"])


def in_parts(tower: TowerSpec, plan: DevicePlan) -> bool:
    """Whether a batch is better computed in parts, a thread each, than with threads that share every operator."""
    return plan.threads > 1 and _of_tower(tower, plan).in_parts


def text_rows(tower: TowerSpec, plan: DevicePlan) -> int | None:
    """How many rows of packed texts each thread must have for that to be so of texts; None if it never is."""
    return _of_tower(tower, plan).text_rows if plan.threads > 1 and tower.tokenizer is not None else None


def _of_tower(tower: TowerSpec, plan: DevicePlan) -> Arithmetic:
    """What the tower is computed in: a tower without a graph for the precision runs fp32."""
    arithmetic = _arithmetic(plan.device, plan.precision)
    return arithmetic if arithmetic.graph in tower.variants else _arithmetic(plan.device, "fp32")


def _arithmetic(device: str, precision: str) -> Arithmetic:
    return provider(device).precisions[precision]


def _refusal(needs: Instructions, cpu: Processor) -> str | None:
    if needs.x86_only and not cpu.is_x86:
        return None
    if cpu.features is None:
        return f"it cannot be told whether this CPU has {needs.name}, {needs.without}. {CANNOT_TELL} Or use fp32."
    if set(needs.any_of).isdisjoint(cpu.features):
        return f"this CPU has no {needs.name}, {needs.without}. Use fp32."
    return None
