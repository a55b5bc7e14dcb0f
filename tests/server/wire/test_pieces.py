"""Pieces that come one after the other: whole again, cut where told, and moved by nobody."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from clipsrv.server.wire import pieces
from clipsrv.server.wire.pieces import Pieces

FEW, MANY = 100_000, 9_000_000


def parts(count: int, step: int) -> Iterator[bytes]:
    """`count` bytes that differ from place to place."""
    whole = bytes(range(251)) * (count // 251 + 1)
    return (whole[at : min(at + step, count)] for at in range(0, count, step))


@pytest.fixture(params=[True, False], ids=["a system that remaps", "one that copies"])
def either_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_REMAPS", request.param)


@pytest.mark.usefixtures("either_system")
@pytest.mark.parametrize("count", [0, 1, FEW, MANY])
@pytest.mark.parametrize("step", [8192, 3_000_001])
def test_pieces_are_whole_again(count: int, step: int) -> None:
    found = Pieces()
    for part in parts(count, step):
        found.add(part)
    assert len(found) == len(found.whole()) == count
    assert found.whole()[:] == bytes(found.blob()) == b"".join(parts(count, step))


@pytest.mark.usefixtures("either_system")
@pytest.mark.parametrize("most", [FEW, 2 * FEW + 1, MANY - 1])
def test_of_more_than_the_most_one_byte_more_is_kept(most: int) -> None:
    found = Pieces(most)
    for part in parts(MANY, 65_536):
        found.add(part)
    assert len(found) == most + 1
    assert found.whole()[:] == b"".join(parts(MANY, 65_536))[: most + 1]


def test_many_bytes_are_in_a_mapping_of_their_own() -> None:
    found = Pieces()
    found.add(bytes(MANY))
    assert isinstance(found.whole(), mmap.mmap)


@pytest.mark.usefixtures("either_system")
def test_what_the_system_cannot_hold_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Pieces()
    found.add(bytes(MANY))

    class Full(mmap.mmap):
        def __new__(cls, *_: object, **__: object) -> Full:
            raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", Full)
    with pytest.raises(MemoryError):
        Pieces().add(bytes(MANY))
