"""Instruction sets that decide whether a precision is right and fast on a CPU, by their names in /proc/cpuinfo."""

from __future__ import annotations

from clipsrv.runtime.providers.row import Instructions

VNNI = Instructions(
    ("avx512_vnni", "avx_vnni"),
    "VNNI instructions",
    "without which 8-bit sums saturate and give wrong vectors, or are slower than fp32",
    x86_only=True,
)

BF16 = Instructions(("avx512_bf16", "amx_bf16"), "bf16 arithmetic", "without which it would be slower than fp32")
