"""Columns of tables as sources: Parquet with paths, URLs or bytes, and lists of objects with other keys."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsrv.bulk.errors import FetchError
from clipsrv.bulk.records import BadFile, Entry
from clipsrv.bulk.sources.columns import Columns
from clipsrv.bulk.sources.inputs import Inputs
from clipsrv.errors import ConfigError, ImageTooLargeError
from tests.bulk.tool import Embed, ids, lines
from tests.support.photos import cuttings
from tests.support.s3 import Bucket, s3_server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(columns: dict[str, Any], name: str = "t.parquet", **options: Any) -> str:
    pq.write_table(pa.table(columns), name, **options)
    return name


def found(name: str, identity: str | None = None, image: str | None = None) -> list[Entry | BadFile]:
    return list(Inputs([name], columns=Columns(identity, image)).entries())


def test_a_column_of_paths_or_urls_gives_entries_under_the_ids_beside_it() -> None:
    assert found(written({"id": [7, 8], "path": ["a.jpg", "s3://b/c.jpg"], "price": [1, 2]})) == [
        Entry("7", "a.jpg"),
        Entry("8", "s3://b/c.jpg"),
    ]
    assert found(written({"id": ["x"], "photo": ["a.jpg"]})) == [Entry("x", "a.jpg")]
    named = written({"sku": ["x", "y"], "id": [1, 2], "url": ["https://h/a", "b.jpg"]})
    assert found(named, "sku", "url") == [Entry("x", "https://h/a"), Entry("y", "b.jpg")]
    assert [one.id for one in found(written({"photo": ["a.jpg", "b.jpg"]}))] == ["t.parquet/0", "t.parquet/1"]


def test_a_row_without_id_or_image_is_a_bad_row_with_its_place() -> None:
    rows = found(written({"id": ["1", None, "", "4"], "path": [None, "a.jpg", "b.jpg", ""]}))
    assert all(isinstance(one, BadFile) and one.code == "bad_entry" for one in rows)
    assert [one.path for one in rows] == [f"t.parquet, row {number}" for number in range(4)]
    assert isinstance(found(written({"id": [1.5], "path": ["a"]}))[0], BadFile)


@pytest.mark.parametrize(
    ("columns", "asked", "reason"),
    [
        ({"id": [1], "a": ["x"], "b": ["y"]}, (), "Which column of .* --image-column: id, a, b"),
        ({"id": [1], "path": ["x"]}, ("sku", None), "no column 'sku' .--id-column.; it has id, path"),
        ({"id": [1], "path": ["x"]}, (None, "url"), "no column 'url' .--image-column."),
        ({"id": [1], "path": [5]}, (), "is int64: it must be strings or bytes"),
        ({"id": [1], "path": [{"uri": "x"}]}, (), "it must be strings or bytes"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_by_name(columns: Any, asked: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        found(written(columns), *asked)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table" * 100])
def test_a_file_that_is_no_parquet_is_refused_by_name(content: bytes) -> None:
    Path("t.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=r"Cannot read the Parquet file 't.parquet'"):
        found("t.parquet")


BODIES = [bytes([number % 256]) * (number % 50 + 1) for number in range(1_000)]


@pytest.fixture(params=["bytes", "struct", "large"])
def table(request: pytest.FixtureRequest) -> str:
    """A thousand images in rows, in groups of 300."""
    images: Any = pa.array(BODIES, pa.large_binary() if request.param == "large" else pa.binary())
    if request.param == "struct":
        images = pa.array([{"bytes": body, "path": "x.png"} for body in BODIES])
    return written({"image": images, "label": list(range(1_000))}, row_group_size=300)


def test_images_in_rows_are_read_in_any_order_by_any_thread_and_process(table: str) -> None:
    entries = found(table, None, "image")
    inputs = pickle.loads(pickle.dumps(Inputs([table], columns=Columns(None, "image"))))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda entry: inputs.read(entry.path, 1_000), entries)) == BODIES
    for number in (999, 0, 300, 299, 998):
        assert inputs.read(entries[number].path, 1_000) == BODIES[number]
    with pytest.raises(ImageTooLargeError):
        inputs.read(entries[49].path, 10)


def test_a_file_that_is_another_by_now_gives_no_other_image(table: str) -> None:
    entries = found(table, None, "image")
    written({"image": BODIES[::-1], "label": list(range(1_000))}, row_group_size=300)
    for path in (entries[5].path, entries[5].path.replace("+", "+0"), "parquet://", "parquet://5@t.parquet#image"):
        with pytest.raises(FetchError):
            Inputs([]).read(path, 1_000)
    Path(table).unlink()
    with pytest.raises(FetchError, match="cannot be read"):
        Inputs([]).read(entries[5].path, 1_000)


def test_a_damaged_row_group_is_a_failure_of_its_rows_and_of_no_other() -> None:
    entries = found(written({"id": list(range(1_000)), "path": BODIES}, row_group_size=500, compression="none"))
    body = bytearray(Path("t.parquet").read_bytes())
    start = pq.read_metadata("t.parquet").row_group(1).column(1).dictionary_page_offset
    body[start : start + 40] = b"\xff" * 40
    Path("t.parquet").write_bytes(body)
    with pytest.raises(FetchError) as caught:
        Inputs([]).read(entries[700].path, 1_000)
    assert caught.value.code == "bad_archive"
    assert Inputs([]).read(entries[10].path, 1_000) == BODIES[10]


def test_a_row_without_an_image_is_a_failure_of_its_own() -> None:
    entries = found(written({"id": [1, 2], "path": pa.array([None, b"x"], pa.binary())}))
    with pytest.raises(FetchError, match="The row has no image"):
        Inputs([]).read(entries[0].path, 10)
    assert Inputs([]).read(entries[1].path, 10) == b"x"


def test_objects_of_a_list_can_have_other_keys() -> None:
    Path("list").write_text('{"sku": 1, "photo": "a.jpg", "id": 9}\n{"id": 2, "path": "b.jpg"}\nplain.jpg\n{\n')
    first, bad, plain, broken = Inputs((), ["list"], columns=Columns("sku", "photo")).entries()
    assert (first, plain) == (Entry("1", "a.jpg"), Entry("plain.jpg", "plain.jpg"))
    assert isinstance(bad, BadFile)
    assert bad.message == "no sku and no photo; its keys are: id, path"
    assert isinstance(broken, BadFile)
    assert broken.message.endswith('must be like {"sku": "42", "photo": "a.jpg"}')


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patched, s3_server(patched):
        yield Bucket("tables")


def test_parquet_in_a_store_is_read_there(bucket: Bucket) -> None:
    bucket.put({"t.parquet": Path(written({"id": list(range(1_000)), "path": BODIES})).read_bytes()})
    inputs = Inputs(["s3://tables/*.parquet"])
    assert [inputs.read(entry.path, 1_000) for entry in inputs.entries()] == BODIES


def test_the_vectors_are_those_of_the_files(embed: Embed, tmp_path: Path) -> None:
    blobs = cuttings(6)
    for number, blob in enumerate(blobs):
        (tmp_path / f"{number}.jpg").write_bytes(blob)
    names = [str(tmp_path / f"{number}.jpg") for number in range(6)]
    written({"id": list(range(7)), "image": [*blobs, b"no image"]}, "bytes.parquet")
    written({"sku": [f"s{number}" for number in range(6)], "photo": names, "price": [1] * 6}, "paths.parquet")
    embed(tmp_path / "bytes.parquet", "--out", tmp_path / "bytes.npy", "--shard-size", 4)
    columns = ("--id-column", "sku", "--image-column", "photo")
    embed(tmp_path / "paths.parquet", *columns, "--out", tmp_path / "paths.npy", "--shard-size", 4)
    embed(tmp_path, "--out", tmp_path / "folder.npy", "--shard-size", 4)
    assert len({(tmp_path / f"{kind}.npy").read_bytes() for kind in ("bytes", "paths", "folder")}) == 1
    assert (ids(tmp_path / "bytes.npy"), ids(tmp_path / "paths.npy")) == (list("012345"), [f"s{n}" for n in range(6)])
    assert [line["code"] for line in lines(tmp_path / "bytes.npy.errors.jsonl")] == ["not_an_image"]
