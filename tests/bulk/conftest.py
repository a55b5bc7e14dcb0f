"""Fixtures of the bulk job: the command, folders of images, and a real PostgreSQL with pgvector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clipsrv.runtime.vectors import Vectors
from tests.bulk.tool import SHARDS, SMALL, Embed, ids, vectors
from tests.support.photos import cuttings
from tests.support.postgres import Postgres


@pytest.fixture(scope="session")
def embed(models_dir: Path) -> Embed:
    """The command with the small model."""
    return Embed(models_dir)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 20 good images, a copy of the third, and two files that are no images, in two folders."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    blobs = cuttings(20)
    for number, blob in enumerate(blobs):
        (folder / ("more" if number % 3 == 0 else "") / f"{number:02d}.jpg").write_bytes(blob)
    (folder / "copy.jpg").write_bytes(blobs[2])
    (folder / "broken.jpg").write_bytes(blobs[4][: len(blobs[4]) // 2])
    (folder / "text.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 1,000 files: 300 images again and again, and every 97th broken."""
    folder = tmp_path_factory.mktemp("many")
    blobs = cuttings(300, (48, 36))
    for number in range(1000):
        blob = b"broken" if number % 97 == 5 else blobs[(number * number + number // 7) % 300]
        (folder / f"{number:04d}.jpg").write_bytes(blob)
    return folder


@pytest.fixture(scope="session")
def uninterrupted(embed: Embed, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the 1,000 files in one go. Tests do not write to it."""
    out = tmp_path_factory.mktemp("whole") / "whole.npy"
    embed(many, "--out", out, *SMALL)
    return out


@pytest.fixture(scope="session")
def expected(uninterrupted: Path) -> dict[str, Vectors]:
    """Its vectors by their ids: what any other store holds of the same files."""
    return dict(zip(ids(uninterrupted), vectors(uninterrupted), strict=True))


@pytest.fixture(scope="session")
def whole(embed: Embed, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the 1,000 files in one go. Tests do not write to it."""
    folder = tmp_path_factory.mktemp("shards")
    said = embed(many, "--work", folder / "work", "--out", folder / "whole.parquet", *SHARDS)
    assert "all 16 shards" in said
    return folder / "whole.parquet"


@pytest.fixture
def table(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a table that is gone after the test."""
    postgres.up()
    name = request.node.name.split("[")[0][:60]
    yield name
    postgres.up()
    postgres.query(f'DROP TABLE IF EXISTS "{name}"')
