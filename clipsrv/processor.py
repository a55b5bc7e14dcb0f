"""Which CPU this is, and which instruction sets it has: by /proc/cpuinfo, else by its own word, else unknown."""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

try:
    from clipsrv import _cpu
except ImportError:  # no C compiler was there when clipsrv was installed
    _cpu = None  # type: ignore[assignment]

_CPUINFO = Path("/proc/cpuinfo")

#: Why the features of a CPU may be unknown, and what to do.
CANNOT_TELL = (
    "/proc/cpuinfo cannot be read, and clipsrv has no compiled part to ask the CPU itself: let the process read it "
    "(systemd: ProcSubset=all), or install clipsrv again where a C compiler is."
)


@dataclass(frozen=True)
class Processor:
    """`features` are those that decide which arithmetic is right and fast, by their names in /proc/cpuinfo; None if
    nothing here can tell."""

    name: str
    is_x86: bool
    features: tuple[str, ...] | None


class _Bit(NamedTuple):
    """Where cpuid says that a CPU has something, and what XCR0 must hold for the system to let programs use it."""

    leaf: int
    subleaf: int
    register: int
    bit: int
    kept: int


_EAX, _EBX, _ECX, _EDX = range(4)
#: XCR0's bits of the AVX registers, of AVX-512's, and of AMX's.
_YMM, _ZMM, _TILES = 0x6, 0xE6, 0x60000
#: Intel's Software Developer's Manual, volume 2, CPUID, leaf 7.
_FEATURES = {
    "avx2": _Bit(7, 0, _EBX, 5, _YMM),
    "avx512f": _Bit(7, 0, _EBX, 16, _ZMM),
    "avx_vnni": _Bit(7, 1, _EAX, 4, _YMM),
    "avx512_vnni": _Bit(7, 0, _ECX, 11, _ZMM),
    "avx512_bf16": _Bit(7, 1, _EAX, 5, _ZMM),
    "amx_bf16": _Bit(7, 0, _EDX, 22, _TILES),
    "amx_int8": _Bit(7, 0, _EDX, 25, _TILES),
}
#: The leaves that hold the CPU's name, sixteen letters each.
_NAME = (0x80000002, 0x80000003, 0x80000004)


def this_processor(cpuinfo: Path = _CPUINFO) -> Processor:
    """The CPU this process runs on."""
    facts, is_x86 = _read(cpuinfo), platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}
    name = facts.get("model name") or _own_name() or platform.processor() or "unknown CPU"
    if "flags" in facts or not is_x86:
        flags = facts.get("flags", "").split()
        return Processor(name, is_x86, tuple(feature for feature in _FEATURES if feature in flags))
    return Processor(name, is_x86, own_features())


def own_features() -> tuple[str, ...] | None:
    """What the CPU itself says it has and the system lets programs use; None if it cannot be asked."""
    kept = _cpu.xgetbv() if _cpu else None
    if kept is None:
        return None

    def has(bit: _Bit) -> bool:
        registers = _cpu.cpuid(bit.leaf, bit.subleaf)
        return registers is not None and bool(registers[bit.register] >> bit.bit & 1) and kept & bit.kept == bit.kept

    return tuple(name for name, bit in _FEATURES.items() if has(bit))


def _own_name() -> str:
    leaves = [_cpu.cpuid(leaf, 0) for leaf in _NAME] if _cpu else []
    letters = b"".join(struct.pack("<4I", *registers) for registers in leaves if registers)
    return letters.rstrip(b"\0").decode("ascii", "replace").strip()


def _read(path: Path) -> dict[str, str]:
    try:
        first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
