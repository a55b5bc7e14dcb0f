"""A job in shards whose images, list, marks and output are all in an object store: a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest

from clipsrv.bulk.work.folder import Folder
from tests.bulk.tool import SMALL, Embed, ids, vectors
from tests.support.s3 import Bucket, s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patched, s3_server(patched):
        yield Bucket("shop")


def test_two_parts_in_an_object_store_make_what_one_run_over_files_makes(
    bucket: Bucket, embed: Embed, images: Path, tmp_path: Path
) -> None:
    bucket.put({f"photos/{path.relative_to(images)}": path.read_bytes() for path in images.rglob("*.*")})
    embed(images, "--relative-to", images, "--out", tmp_path / "out.npy", *SMALL)
    where = ("--work", "s3://shop/job", "--out", "s3://shop/out.parquet")
    args = ("s3://shop/photos", "--relative-to", "s3://shop/photos", *SMALL, "--rows-per-shard", 8, *where)
    embed(*args, "--shard", "1/2")
    assert "all 3 shards" in embed(*args, "--shard", "0/2")
    out, work = Folder("s3://shop/out.parquet"), Folder("s3://shop/job")
    assert out.names("") == {"_clipsrv.json", *(f"shard-{number:06d}.parquet" for number in range(3))}
    found = ds.dataset("shop/out.parquet", filesystem=out._store, format="parquet").to_table().to_pylist()
    assert [row["id"] for row in found] == ids(tmp_path / "out.npy")
    np.testing.assert_allclose([row["embedding"] for row in found], vectors(tmp_path / "out.npy"), atol=1e-6)
    bad = ds.dataset("shop/job/failures", filesystem=work._store, format="parquet").to_table().to_pylist()
    assert sorted(row["id"] for row in bad) == ["broken.jpg", "text.png"]
    (row,) = [row for row in _inputs(work) if row["id"] == "copy.jpg"]
    assert row["size"] == (images / "copy.jpg").stat().st_size
    assert row["etag"]
    assert work.create("a", b"first")
    assert not work.create("a", b"second")


def _inputs(work: Folder) -> list[dict[str, object]]:
    found: list[dict[str, object]] = (
        ds.dataset("shop/job/inputs", filesystem=work._store, format="parquet").to_table().to_pylist()
    )
    return found
