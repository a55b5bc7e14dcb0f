"""What is to be known of an execution provider. Imports nothing heavy, so that --help can list devices at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clipsrv.providers.instructions import Instructions

#: Every precision there is, the most exact first.
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class DevicePlan:
    """How sessions are to be made. `device` is a provider's, never `auto`; `threads` is for one inference."""

    device: str
    threads: int
    precision: str = "fp32"


@dataclass(frozen=True)
class Arithmetic:
    """How a provider computes one precision.

    `variant` is what vectors computed so are known by (embedding_id), `graph` the tower's variant that is opened.
    `auto` says that it may be taken unasked where it was measured to change vectors little, `in_parts` that a batch is
    computed faster in parts, a thread each, than with threads that share every operator. `text_rows`: of packed texts
    it is so too, where each part has so many rows at least.
    """

    variant: str
    graph: str
    needs: Instructions | None = None
    auto: bool = False
    in_parts: bool = False
    text_rows: int | None = None


def same(precision: str, *, auto: bool = False) -> Arithmetic:
    """The Arithmetic of a precision that runs the graph of its name."""
    return Arithmetic(precision, precision, auto=auto)


def no_options(plan: DevicePlan) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Provider:
    """One row. `onnx_name` is onnxruntime's, `aliases` are other words for `device`.

    `packages` carry it, `extra` is clipsrv's that installs one of them, and `needs` is what else it takes.
    `auto_rank` orders what `auto` tries, the smallest first; None is only ever asked for. `options` gives onnxruntime's
    options of the provider. `optimises_itself` keeps onnxruntime from fusing operators that the provider does not know.
    `library` is onnxruntime's file of a provider that needs libraries of other packages (CUDA's).
    `streams` says that several inferences at once, on one thread each, give more images a second than one on all.
    `recording` are the options with which it records the launches of a batch and replays them as one.
    `run_cost` is what a further run of the text tower costs, in tokens, where it pays to sort texts by length.
    """

    device: str
    onnx_name: str
    packages: tuple[str, ...]
    extra: str
    auto_rank: int | None
    precisions: Mapping[str, Arithmetic]
    options: Callable[[DevicePlan], Mapping[str, Any]] = no_options
    aliases: tuple[str, ...] = ()
    optimises_itself: bool = False
    library: str = ""
    streams: bool = False
    needs: str = ""
    recording: Mapping[str, str] = field(default_factory=dict)
    run_cost: int | None = None
