"""How a cluster's cores and GPUs are shared among actors. Arithmetic only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipsrv.errors import ConfigError


@dataclass(frozen=True)
class Fleet:
    """So many `actors`, each with `cpus` cores and `gpus` GPUs of one node."""

    actors: int
    cpus: int
    gpus: float


def fleet(nodes: Sequence[Mapping[str, float]], actors: int | None, gpus: float | None) -> Fleet:
    """What is asked for, on `nodes` with what each has of CPU and GPU; without a number of actors as many as fit: one a
    node, or as many as its GPUs are for. Raises ConfigError if no node has what an actor needs."""
    gpus = gpus or 0.0
    fit = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    if not fit:
        needed = f"a core and {gpus:g} GPUs" if gpus else "a core"
        raise ConfigError(f"No node of the cluster has {needed} for an actor (--gpus-per-actor).")
    places = [max(1, int(node.get("GPU", 0) / gpus)) if gpus else 1 for node in fit]
    count = actors or sum(places)
    a_node = [max(places_, -(-count // len(fit))) for places_ in places]
    return Fleet(count, max(1, min(int(node["CPU"]) // of for node, of in zip(fit, a_node, strict=True))), gpus)
