"""Instruction sets that decide whether a precision is right and fast on a CPU, by their names in /proc/cpuinfo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Instructions:
    """Instruction sets of which a CPU must have one; `name` and `without` say what is missing and what that does.

    `x86_only` says that CPUs of other kinds need none of them.
    """

    any_of: tuple[str, ...]
    name: str
    without: str
    x86_only: bool = False


VNNI = Instructions(
    ("avx512_vnni", "avx_vnni"),
    "VNNI instructions",
    "without which 8-bit sums saturate and give wrong vectors, or are slower than fp32",
    x86_only=True,
)

BF16 = Instructions(("avx512_bf16", "amx_bf16"), "bf16 arithmetic", "without which it would be slower than fp32")
