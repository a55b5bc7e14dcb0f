"""Which CPU this is: /proc/cpuinfo, the CPU's own word where that cannot be read, and an honest "cannot tell"."""

from __future__ import annotations

import platform
import runpy
import sys
from pathlib import Path

import pytest

from clipsrv import processor as module
from clipsrv.processor import own_features, this_processor


class Answers:
    """A CPU that answers as it is told."""

    def __init__(self, leaves: dict[tuple[int, int], tuple[int, int, int, int]], kept: int | None) -> None:
        self._leaves, self._kept = leaves, kept

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int] | None:
        return self._leaves.get((leaf, subleaf))

    def xgetbv(self) -> int | None:
        return self._kept


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def write(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


def test_the_cpu_is_named_with_the_instructions_that_matter(tmp_path: Path, x86: None) -> None:
    first = "processor\t: 0\nmodel name\t: Some CPU 9000\nflags\t\t: fpu avx2 amx_int8 sse\n"
    found = this_processor(write(tmp_path, f"{first}\nprocessor\t: 1\nflags\t: none\n"))
    assert (found.name, found.is_x86, found.features) == ("Some CPU 9000", True, ("avx2", "amx_int8"))


def test_a_cpu_of_another_kind_has_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    for path in (write(tmp_path, "processor\t: 0\nFeatures\t: fp asimd asimddp\n"), tmp_path / "none"):
        found = this_processor(path)
        assert (found.is_x86, found.features) == (False, ())


def test_where_proc_cannot_be_read_the_cpu_answers_itself(tmp_path: Path) -> None:
    """Nothing replaced here: this machine's CPU, by its own word and by the system's."""
    if this_processor().is_x86:
        assert this_processor(tmp_path / "none") == this_processor()
    else:
        assert own_features() is None


def test_clipsrv_runs_without_its_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("clipsrv._cpu")
    monkeypatch.setitem(sys.modules, "clipsrv._cpu", None)
    assert runpy.run_path(module.__file__)["own_features"]() is None


def test_without_the_compiled_part_it_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x86: None
) -> None:
    monkeypatch.setattr(module, "_cpu", None)
    assert this_processor(tmp_path / "none").features is None
    assert this_processor(tmp_path / "none").name
    monkeypatch.setattr(module, "_cpu", Answers({}, None))  # compiled by a compiler that cannot ask
    assert this_processor(tmp_path / "none").features is None


@pytest.mark.parametrize(
    ("leaves", "kept", "features"),
    [
        ({(7, 0): (1, 1 << 5 | 1 << 16, 1 << 11, 1 << 22 | 1 << 25), (7, 1): (1 << 4 | 1 << 5, 0, 0, 0)}, 0x600E6,
         ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")),
        ({(7, 0): (1, 1 << 5, 0, 0), (7, 1): (1 << 4, 0, 0, 0)}, 0x7, ("avx2", "avx_vnni")),
        ({(7, 0): (0, 1 << 5 | 1 << 16, 1 << 11, 0)}, 0x7, ("avx2",)),
        ({(7, 0): (0, 1 << 5, 0, 0)}, 0, ()),
        ({}, 0x7, ()),
    ],
    ids=["everything", "no AVX-512", "AVX-512 that the system does not keep", "nothing kept", "an old CPU"],
)  # fmt: skip
def test_a_feature_counts_if_the_cpu_has_it_and_the_system_keeps_its_registers(
    monkeypatch: pytest.MonkeyPatch,
    leaves: dict[tuple[int, int], tuple[int, int, int, int]],
    kept: int,
    features: tuple[str, ...],
) -> None:
    monkeypatch.setattr(module, "_cpu", Answers(leaves, kept))
    assert own_features() == features
